//! Making a container: from a checked request to an init process that waits just before execve.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use husk_agent_api::v1::{self, CreateContainerRequest, PidMode, mount::Kind};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::sync::mpsc;

use super::held::Held;
use super::{Container, Phase, Process, State, check, root, supervise};
use crate::agent::Agent;
use crate::cgroup::devices;
use crate::error::{Context, Error, Result};
use crate::fs::mount::{clone_path, map_ids};
use crate::launch::status::{Progress, StatusReceiver};
use crate::paths;
use crate::pod::users::UserNamespace;
use crate::stdio::{self, Direction, End};
use crate::zygote::client::{Request, Spawned};
use crate::zygote::message::{Job, LaunchSpec, Role, RootSpec};

/// Makes a container. When a step fails, what the earlier ones made is given back.
pub async fn create(agent: &Arc<Agent>, request: CreateContainerRequest) -> Result<u32> {
    check::create(&request)?;
    agent.check_resumed()?;
    let id = request.container_id.clone();
    let reservation = agent.reserve(&id)?;
    let mut held = Held::new(&id, agent.cgroup.child(&id));
    match build(agent, request, &mut held).await {
        Ok(built) => {
            let pid = built.container.state().init.pid;
            reservation.fill(Arc::clone(&built.container));
            supervise::start(Arc::clone(agent), built, held);
            Ok(pid)
        }
        Err(error) => {
            if let Err(second) = held.give_back(agent).await {
                crate::warning!("container {id}: clean up after a failed creation: {second}");
            }
            Err(error.during(format_args!("container {id}")))
        }
    }
}

/// A container that has just been made, and what its supervisor needs.
#[derive(Debug)]
pub struct Built {
    /// The container.
    pub container: Arc<Container>,
    /// The end of its init.
    pub exit: tokio::sync::oneshot::Receiver<u8>,
    /// Requests to remove it.
    pub removals: mpsc::Receiver<tokio::sync::oneshot::Sender<Result<()>>>,
}

async fn build(agent: &Arc<Agent>, mut request: CreateContainerRequest, held: &mut Held) -> Result<Built> {
    for node in &mut request.devices {
        if let Some(slot) = node.slot {
            (node.major, node.minor) = agent.slots.block_numbers(slot).await?;
            node.r#type = "b".to_owned();
        }
    }
    if request.all_devices {
        request.devices.extend(devices::shared()?);
    }
    let users = match &request.user_namespace {
        Some(maps) => Some(agent.user_namespace(maps).await?),
        None => None,
    };
    let users_held = users.clone();
    let users = users.as_deref();
    if let Some(users) = users {
        for node in &mut request.devices {
            (node.uid, node.gid) = (users.uid(node.uid)?, users.gid(node.gid)?);
        }
    }
    let id = request.container_id.clone();
    let process = request.process.clone().unwrap_or_default();
    let tokens = process.stdio.unwrap_or_default();
    agent.streams.check(&tokens)?;

    // The container's own cgroup is the root of its cgroup namespace. The device rules are on the one above, out of its
    // reach: from a privileged container they could be taken off.
    let fence = agent.cgroup.child(&id);
    fence.create()?;
    fence.enable_controllers()?;
    devices::restrict(&fence, &request.devices)?;
    let cgroup = fence.child(paths::CONTAINER_CGROUP);
    cgroup.create()?;
    cgroup.bound_subtree()?;
    agent.limits(&request.resources.clone().unwrap_or_default()).await?.apply(&cgroup)?;
    if let Some(users) = users
        && request.mounts.iter().any(is_writable_cgroup)
    {
        cgroup.delegate(users.uid(0)?, users.gid(0)?)?;
    }

    let mut spawn = Request::new(Job::Init);
    give_users(&mut spawn, users)?;
    spawn.give(Role::RootFs, root::make(agent, &id, request.root_fs.as_ref(), users, held).await?);
    for mount in &request.mounts {
        if let Some(source) = mount_source(agent, mount, users, held).await? {
            spawn.give(Role::Mount, source);
        }
    }
    match pid_namespace(agent, &request, users).await? {
        PidNamespace::New => spawn.in_new_pid_namespace(),
        PidNamespace::Of(pidfd) => spawn.give(Role::PidNamespace, pidfd),
        PidNamespace::Guest => {}
    }
    let (start, held_back) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map(|(r, w)| (w, r)).on("pipe2", "start")?;
    spawn.give(Role::Start, held_back);
    spawn.give(Role::Cgroup, cgroup.open()?);
    spawn.give_spec(&launch_spec(&request, process.clone())?)?;
    let (status, streams) = give_stdio(&mut spawn, &process, users)?;

    let Spawned { pid, pidfd, exit } = match agent.zygote.spawn(spawn).await {
        Ok(spawned) => spawned,
        // One that was to make another in a user namespace and could not has said why.
        Err(error) => match status.next().await? {
            Progress::Failed(cause) => return Err(cause),
            _ => return Err(error),
        },
    };
    let console = until_ready(&status, &tokens).await?;
    let (console, streams) = match console {
        Some((console, terminal)) => (Some(console), terminal),
        None => (None, streams),
    };
    for (token, direction) in streams {
        agent.streams.add(&id, token, direction);
    }
    let (removals, removals_queue) = mpsc::channel(8);
    let init = Process { pid, pidfd: Arc::new(pidfd), console, stdin: tokens.stdin };
    let phase = Phase::Created { start, status };
    let state = State { phase, init, execs: HashMap::new(), ooms_told: 0 };
    let container = Arc::new(Container {
        id,
        cgroup,
        seccomp: request.seccomp,
        users: users_held,
        rlimits: process.rlimits,
        state: Mutex::new(state),
        removals,
    });
    Ok(Built { container, exit, removals: removals_queue })
}

fn is_writable_cgroup(mount: &v1::Mount) -> bool {
    matches!(&mount.kind, Some(Kind::Kernel(kernel)) if kernel.fs_type == "cgroup2")
        && mount.flags & libc::MS_RDONLY == 0
}

/// The user namespace that a new process is to enter.
pub(super) fn give_users(spawn: &mut Request, users: Option<&UserNamespace>) -> Result<()> {
    if let Some(users) = users {
        spawn.give(Role::UserNamespace, users.fd.try_clone().on("dup", "user namespace")?);
    }
    Ok(())
}

/// Pipes and status socket for a new process: what goes to the zygote is added to `spawn`.
pub(super) fn give_stdio(
    spawn: &mut Request,
    process: &v1::Process,
    users: Option<&UserNamespace>,
) -> Result<(StatusReceiver, Vec<(u64, Direction)>)> {
    let (status, theirs) = StatusReceiver::pair()?;
    spawn.give(Role::Status, theirs);
    if process.terminal {
        return Ok((status, Vec::new()));
    }
    let user = process.user.clone().unwrap_or_default();
    let (uid, gid) = match users {
        Some(users) => (users.uid(user.uid)?, users.gid(user.gid)?),
        None => (user.uid, user.gid),
    };
    let (ends, ours) = stdio::pipes(&process.stdio.unwrap_or_default(), uid, gid)?;
    for (role, end) in [(Role::Stdin, ends.stdin), (Role::Stdout, ends.stdout), (Role::Stderr, ends.stderr)] {
        if let Some(end) = end {
            spawn.give(role, end);
        }
    }
    Ok((status, ours))
}

async fn until_ready(status: &StatusReceiver, tokens: &v1::Stdio) -> Result<Option<(End, Vec<(u64, Direction)>)>> {
    let mut console = None;
    loop {
        match status.next().await? {
            Progress::Ready => return Ok(console),
            Progress::Console(master) => console = Some(stdio::terminal(tokens, master)?),
            Progress::Failed(error) => return Err(error),
            Progress::Closed => {
                return Err(Error::precondition(
                    "its init was killed while it was being set up; is its memory limit too small, or does its \
                     seccomp profile kill who calls capset, prctl or write?",
                ));
            }
        }
    }
}

fn launch_spec(request: &CreateContainerRequest, process: v1::Process) -> Result<LaunchSpec> {
    let root = RootSpec {
        mounts: request.mounts.clone(),
        devices: request.devices.clone(),
        masked_paths: request.masked_paths.clone(),
        readonly_paths: request.readonly_paths.clone(),
        propagation: check::propagation(request.root_propagation)?,
        read_only: request.root_fs.as_ref().is_some_and(|root_fs| root_fs.read_only),
    };
    let seccomp = request.seccomp.clone();
    Ok(LaunchSpec { process: Some(process), root: Some(root), seccomp, clocks: request.clocks })
}

/// The detached mount for everything but a kernel file system.
async fn mount_source(
    agent: &Agent,
    mount: &v1::Mount,
    users: Option<&UserNamespace>,
    held: &mut Held,
) -> Result<Option<OwnedFd>> {
    let source = match &mount.kind {
        None | Some(Kind::Kernel(_)) => return Ok(None),
        Some(Kind::Volume(volume)) => {
            held.volume(agent, &volume.name)?;
            agent.volumes.open(&volume.name, &volume.sub_path).await?
        }
        Some(Kind::PodFile(file)) => clone_path(&Path::new(paths::POD_FILES).join(&file.name))?,
        Some(Kind::SharedMemory(_)) => clone_path(Path::new(paths::SHM))?,
    };
    let what = || format!("mount on {}", mount.destination);
    match (&mount.kind, &mount.id_maps, users) {
        (Some(Kind::Volume(_)), Some(maps), _) => {
            let users = agent.user_namespace(maps).await?;
            map_ids(&source, &users.fd).map_err(|errno| match errno {
                Errno::INVAL => Error::invalid(format!("id_maps of {}: its file system has no such mounts", what())),
                errno => Error::System { call: "mount_setattr", object: what(), errno },
            })?;
        }
        (Some(Kind::PodFile(_) | Kind::SharedMemory(_)), _, Some(users)) => {
            map_ids(&source, &users.fd).on("mount_setattr", what())?;
        }
        _ => {}
    }
    Ok(Some(source))
}

enum PidNamespace {
    New,
    Of(OwnedFd),
    Guest,
}

async fn pid_namespace(
    agent: &Agent,
    request: &CreateContainerRequest,
    users: Option<&UserNamespace>,
) -> Result<PidNamespace> {
    let copy = |fd: &OwnedFd| fd.try_clone().on("dup", "pidfd").map(PidNamespace::Of);
    match PidMode::try_from(request.pid_mode) {
        Ok(PidMode::Unspecified | PidMode::Container) => Ok(PidNamespace::New),
        Ok(PidMode::Pod) => copy(&*agent.pod_pid_namespace(users).await?),
        Ok(PidMode::Target) => copy(&agent.container(&request.pid_target)?.live_init()?.pidfd),
        Ok(PidMode::Node) => Ok(PidNamespace::Guest),
        Err(_) => Err(Error::invalid(format!("pid_mode: {} is unknown", request.pid_mode))),
    }
}
