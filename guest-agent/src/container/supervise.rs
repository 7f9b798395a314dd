//! The task of a container: tells its end and its OOM kills, and removes it when asked to.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use husk_agent_api::v1::{ProcessExited, event::Kind};
use rustix::fs::{Mode, OFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::create::Built;
use super::held::Held;
use super::{Container, Phase};
use crate::agent::Agent;
use crate::error::Result;

/// Starts the task.
pub fn start(agent: Arc<Agent>, built: Built, held: Held) {
    tokio::spawn(run(agent, built, held));
}

async fn run(agent: Arc<Agent>, built: Built, mut held: Held) {
    let Built { container, mut exit, mut removals } = built;
    let oom = watch_oom(&container);
    let mut ended = false;
    loop {
        tokio::select! {
            code = &mut exit, if !ended => {
                ended = true;
                tell_end(&agent, &container, code.unwrap_or(u8::MAX));
            }
            () = changed(oom.as_ref()) => { container.tell_ooms(&agent.events); }
            Some(answer) = removals.recv() => {
                let result = remove(&agent, &container, &mut held, (!ended).then_some(&mut exit)).await;
                ended = ended || result.is_ok();
                let done = result.is_ok();
                let _ = answer.send(result);
                if done {
                    agent.forget(&container.id);
                    return;
                }
            }
        }
    }
}

/// Ends what is left of the container, tells its end if that had not happened, and gives everything back.
async fn remove(
    agent: &Agent,
    container: &Container,
    held: &mut Held,
    exit: Option<&mut oneshot::Receiver<u8>>,
) -> Result<()> {
    if let Some(exit) = exit {
        container.cgroup.kill()?;
        tell_end(agent, container, exit.await.unwrap_or(u8::MAX));
    }
    held.give_back(agent).await
}

/// The init has ended: so does everything else in the container, as in a pid namespace of its own.
fn tell_end(agent: &Agent, container: &Container, code: u8) {
    let stdin = {
        let mut state = container.state();
        state.phase = Phase::Stopped;
        state.init.console = None;
        state.init.stdin
    };
    if let Err(error) = container.cgroup.kill() {
        crate::warning!("container {}: end its remaining processes: {error}", container.id);
    }
    agent.streams.remove(stdin);
    // Before the cgroup can go; and the kills before the end that they caused.
    let kills = container.tell_ooms(&agent.events);
    agent.events.emit(Kind::Exited(ProcessExited {
        container_id: container.id.clone(),
        exec_id: String::new(),
        exit_code: u32::from(code),
        oom_killed: kills > 0,
    }));
}

/// memory.events wakes its pollers with POLLPRI at every change.
fn watch_oom(container: &Container) -> Option<AsyncFd<OwnedFd>> {
    let path = container.cgroup.path().join("memory.events");
    let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let watched = fd.map_err(std::io::Error::from).and_then(|fd| crate::sys::watch(fd, Interest::PRIORITY));
    watched.inspect_err(|error| crate::warning!("watch {} for OOM kills: {error}", path.display())).ok()
}

async fn changed(events: Option<&AsyncFd<OwnedFd>>) {
    let Some(events) = events else { return std::future::pending().await };
    match events.ready(Interest::PRIORITY).await {
        Ok(mut ready) => {
            // Reading through this very descriptor arms it again.
            let _ = rustix::io::pread(events.get_ref().as_fd(), &mut [0; 512], 0);
            ready.clear_ready();
        }
        Err(_) => std::future::pending().await,
    }
}
