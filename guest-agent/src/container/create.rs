//! Making a container: from a checked request to an init process that waits just before execve.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use husk_agent_api::v1::{self, CreateContainerRequest, PidMode, mount::Kind};
use rustix::fs::{Gid, Mode, Uid};
use rustix::pipe::PipeFlags;
use tokio::sync::mpsc;

use super::held::Held;
use super::{Container, Phase, Process, State, check, supervise};
use crate::agent::Agent;
use crate::cgroup::devices;
use crate::error::{Context, Error, Result};
use crate::fs::mount::{Detached, clone_path, make_read_only, new_file_system};
use crate::fs::remove::remove_tree;
use crate::launch::status::{Progress, StatusReceiver};
use crate::paths;
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
        request.devices.extend(devices::shared());
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

    let mut spawn = Request::new(Job::Init);
    spawn.give(Role::RootFs, root_fs(agent, &id, request.root_fs.as_ref(), held).await?);
    for mount in &request.mounts {
        if let Some(source) = mount_source(agent, mount, held).await? {
            spawn.give(Role::Mount, source);
        }
    }
    match pid_namespace(agent, &request).await? {
        PidNamespace::New => spawn.in_new_pid_namespace(),
        PidNamespace::Of(pidfd) => spawn.give(Role::PidNamespace, pidfd),
        PidNamespace::Guest => {}
    }
    let (start, held_back) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map(|(r, w)| (w, r)).on("pipe2", "start")?;
    spawn.give(Role::Start, held_back);
    spawn.give(Role::Cgroup, cgroup.open()?);
    spawn.give_spec(&launch_spec(&request, process.clone())?)?;
    let (status, streams) = give_stdio(&mut spawn, &process)?;

    let Spawned { pid, pidfd, exit } = agent.zygote.spawn(spawn).await?;
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
    let container = Arc::new(Container { id, cgroup, seccomp: request.seccomp, state: Mutex::new(state), removals });
    Ok(Built { container, exit, removals: removals_queue })
}

/// Pipes and status socket for a new process: what goes to the zygote is added to `spawn`.
pub(super) fn give_stdio(
    spawn: &mut Request,
    process: &v1::Process,
) -> Result<(StatusReceiver, Vec<(u64, Direction)>)> {
    let (status, theirs) = StatusReceiver::pair()?;
    spawn.give(Role::Status, theirs);
    if process.terminal {
        return Ok((status, Vec::new()));
    }
    let user = process.user.clone().unwrap_or_default();
    let (ends, ours) = stdio::pipes(&process.stdio.unwrap_or_default(), user.uid, user.gid)?;
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
    Ok(LaunchSpec { process: Some(process), root: Some(root), seccomp: request.seccomp.clone() })
}

/// The root as a detached mount: overlayfs of the images with a writable layer on the scratch disk. A read-only root
/// has the layer too where there is a scratch disk: mount points are made in it before the mount becomes read-only.
async fn root_fs(agent: &Agent, id: &str, root_fs: Option<&v1::RootFs>, held: &mut Held) -> Result<Detached> {
    let root_fs = root_fs.ok_or_else(|| Error::invalid("root_fs: missing"))?;
    let mut images = Vec::new();
    for slot in &root_fs.lower_slots {
        images.push(held.image(agent, *slot).await?);
    }
    let layer = if agent.volumes.has_scratch() {
        held.layer();
        Some(writable_layer(id, images.first())?)
    } else if root_fs.read_only {
        None
    } else {
        return Err(Error::precondition("a writable root needs the pod's scratch disk; mount it first"));
    };
    if let (None, [image]) = (&layer, images.as_slice()) {
        let mount = clone_path(image)?;
        make_read_only(&mount, false).on("mount_setattr", image.display())?;
        return Ok(mount);
    }
    let lower: Vec<String> = images.iter().map(|path| path.display().to_string()).collect();
    let mut options: Vec<(&str, Option<&str>)> = lower.iter().map(|path| ("lowerdir+", Some(path.as_str()))).collect();
    let (upper, work) = match &layer {
        Some((upper, work)) => (upper.display().to_string(), work.display().to_string()),
        None => (String::new(), String::new()),
    };
    if layer.is_some() {
        options.push(("upperdir", Some(&upper)));
        options.push(("workdir", Some(&work)));
        // The layer dies with the pod: no need to wait for the disk on fsync.
        options.push(("volatile", None));
    }
    // Device nodes on it open what the container's device program allows, as everywhere.
    new_file_system("overlay", options, 0)
}

/// Upper and work directories; the root of the former has owner and mode of the topmost image's root.
fn writable_layer(id: &str, image: Option<&PathBuf>) -> Result<(PathBuf, PathBuf)> {
    let directory = paths::scratch_container(id);
    // What an earlier container of that name may have left.
    remove_tree(&directory)?;
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    for path in [&directory, &upper, &work] {
        rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).on("mkdir", path.display())?;
    }
    if let Some(image) = image {
        let stat = rustix::fs::stat(image).on("stat", image.display())?;
        rustix::fs::chown(&upper, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
            .on("chown", upper.display())?;
        rustix::fs::chmod(&upper, Mode::from_raw_mode(stat.st_mode & 0o7777)).on("chmod", upper.display())?;
    }
    Ok((upper, work))
}

/// The detached mount for everything but a kernel file system.
async fn mount_source(agent: &Agent, mount: &v1::Mount, held: &mut Held) -> Result<Option<OwnedFd>> {
    let source = match &mount.kind {
        None | Some(Kind::Kernel(_)) => return Ok(None),
        Some(Kind::Volume(volume)) => {
            held.volume(agent, &volume.name)?;
            agent.volumes.open(&volume.name, &volume.sub_path).await?
        }
        Some(Kind::PodFile(file)) => clone_path(&Path::new(paths::POD_FILES).join(&file.name))?,
        Some(Kind::SharedMemory(_)) => clone_path(Path::new(paths::SHM))?,
    };
    Ok(Some(source))
}

enum PidNamespace {
    New,
    Of(OwnedFd),
    Guest,
}

async fn pid_namespace(agent: &Agent, request: &CreateContainerRequest) -> Result<PidNamespace> {
    let copy = |fd: &OwnedFd| fd.try_clone().on("dup", "pidfd").map(PidNamespace::Of);
    match PidMode::try_from(request.pid_mode) {
        Ok(PidMode::Unspecified | PidMode::Container) => Ok(PidNamespace::New),
        Ok(PidMode::Pod) => copy(&*agent.pod_pid_namespace().await?),
        Ok(PidMode::Target) => copy(&agent.container(&request.pid_target)?.live_init()?.pidfd),
        Ok(PidMode::Node) => Ok(PidNamespace::Guest),
        Err(_) => Err(Error::invalid(format!("pid_mode: {} is unknown", request.pid_mode))),
    }
}
