//! Starting: a container's own program, and further processes in it.

use std::os::fd::AsFd;
use std::sync::Arc;

use husk_agent_api::v1::{self, ExecProcessRequest, ProcessExited, event::Kind};

use super::create::{give_stdio, give_users};
use super::{Container, ExecState, Phase, Process, check};
use crate::agent::Agent;
use crate::error::{Context, Error, Result};
use crate::launch::status::{Progress, StatusReceiver};
use crate::stdio;
use crate::zygote::client::{Request, Spawned};
use crate::zygote::message::{Job, LaunchSpec, Role};

/// Most processes that may be started in one container at once.
const MAX_EXECS: usize = 1024;

/// Lets a created container's init execute its program.
pub async fn start(container: &Container) -> Result<()> {
    let id = &container.id;
    let (start, status) = {
        let mut state = container.state();
        match std::mem::replace(&mut state.phase, Phase::Starting) {
            Phase::Created { start, status } => (start, status),
            other => {
                let why = match &other {
                    Phase::Stopped => "has ended",
                    _ => "has been started already",
                };
                state.phase = other;
                return Err(Error::precondition(format!("container {id} {why}")));
            }
        }
    };
    // EPIPE: it was killed; its end is told as an event.
    rustix::io::write(&start, b"s").on("write", "start pipe").map_err(|e| e.during(format_args!("container {id}")))?;
    let result = match status.next().await? {
        Progress::Closed => Ok(()),
        Progress::Failed(error) => Err(error.during(format_args!("container {id}"))),
        Progress::Ready | Progress::Console(_) => Err(Error::Internal(format!("container {id}: unexpected status"))),
    };
    let mut state = container.state();
    if matches!(state.phase, Phase::Starting) && result.is_ok() {
        state.phase = Phase::Running;
    }
    result
}

/// Starts a process in a running container.
pub async fn exec(agent: &Arc<Agent>, request: ExecProcessRequest) -> Result<u32> {
    check::id("exec_id", &request.exec_id)?;
    check::process(request.process.as_ref())?;
    let container = agent.container(&request.container_id)?;
    let exec_id = request.exec_id;
    reserve(&container, &exec_id)?;
    let mut process = request.process.unwrap_or_default();
    if process.rlimits.is_empty() {
        process.rlimits.clone_from(&container.rlimits);
    }
    let result = launch(agent, &container, &exec_id, process).await;
    if result.is_err() {
        container.state().execs.remove(&exec_id);
    }
    result.map_err(|error| error.during(format_args!("container {}", container.id)))
}

fn reserve(container: &Container, exec_id: &str) -> Result<()> {
    let mut state = container.state();
    if matches!(state.phase, Phase::Paused) {
        return Err(Error::precondition(format!("container {} is paused; resume it first", container.id)));
    }
    if !matches!(state.phase, Phase::Running) {
        return Err(Error::precondition(format!("container {} is not running", container.id)));
    }
    if state.execs.contains_key(exec_id) {
        return Err(Error::AlreadyExists(format!("container {} runs a process {exec_id} already", container.id)));
    }
    if state.execs.len() >= MAX_EXECS {
        return Err(Error::Exhausted(format!("container {} runs {MAX_EXECS} further processes", container.id)));
    }
    state.execs.insert(exec_id.to_owned(), ExecState::Starting);
    Ok(())
}

async fn launch(agent: &Arc<Agent>, container: &Arc<Container>, exec_id: &str, process: v1::Process) -> Result<u32> {
    let tokens = process.stdio.unwrap_or_default();
    agent.streams.check(&tokens)?;
    let init = container.live_init()?.pidfd;
    let copy = || init.as_fd().try_clone_to_owned().on("dup", "pidfd");
    let mut spawn = Request::new(Job::Exec);
    spawn.give(Role::Target, copy()?);
    spawn.give(Role::PidNamespace, copy()?);
    spawn.give(Role::Cgroup, container.cgroup.open()?);
    let users = container.users.as_deref();
    give_users(&mut spawn, users)?;
    let (status, mut streams) = give_stdio(&mut spawn, &process, users)?;
    let (process, seccomp) = (Some(process), container.seccomp.clone());
    spawn.give_spec(&LaunchSpec { process, seccomp, ..LaunchSpec::default() })?;

    let kills_before = container.tell_ooms(&agent.events);
    let Spawned { pid, pidfd, exit } = agent.zygote.spawn(spawn).await?;
    let console = match until_executed(&status).await? {
        Some(master) => {
            let (console, terminal) = stdio::terminal(&tokens, master)?;
            streams = terminal;
            Some(console)
        }
        None => None,
    };
    for (token, direction) in streams {
        agent.streams.add(&container.id, token, direction);
    }
    let running = Process { pid, pidfd: Arc::new(pidfd), console, stdin: tokens.stdin };
    container.state().execs.insert(exec_id.to_owned(), ExecState::Running(running));
    let (agent, container, exec_id) = (Arc::clone(agent), Arc::clone(container), exec_id.to_owned());
    tokio::spawn(async move {
        let code = exit.await.unwrap_or(u8::MAX);
        container.state().execs.remove(&exec_id);
        agent.streams.remove(tokens.stdin);
        let kills = container.tell_ooms(&agent.events);
        agent.events.emit(Kind::Exited(ProcessExited {
            container_id: container.id.clone(),
            exec_id,
            exit_code: u32::from(code),
            oom_killed: kills > kills_before,
        }));
    });
    Ok(pid)
}

/// Waits until the program runs, and returns the master of its pty.
async fn until_executed(status: &StatusReceiver) -> Result<Option<std::os::fd::OwnedFd>> {
    let mut console = None;
    loop {
        match status.next().await? {
            Progress::Closed => return Ok(console),
            Progress::Console(master) => console = Some(master),
            Progress::Failed(error) => return Err(error),
            Progress::Ready => return Err(Error::Internal("unexpected status".to_owned())),
        }
    }
}
