//! A task's way from creation to deletion, one function a step.
//!
//! Each request is checked, moved to the phase that says what is under way, carried out without any lock, and only then
//! made known: to the next phase, and to containerd as an event.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use containerd_shim_protos::api::Mount;
use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskIO, TaskStart};
use containerd_shim_protos::topics;
use husk_client::{ATTACH, Exit, to_timestamp};
use husk_pod::{Assets, Deadlines, DiskImage, Placement, Pod, PodConfig, ProcessStreams, StdioWanted};
use oci_spec::runtime::{self as oci, Spec};

use super::engine::{Engine, Kind, Task, Vm};
use super::error::Error;
use super::process::{self, Phase, Process};
use crate::bundle::{Bundle, Role};
use crate::stdio::{self, Endpoints, Owner, Pumps};

/// How long containers get to end by themselves when the pod is asked to stop.
const GRACE: Duration = Duration::from_secs(10);
/// And when it is killed.
const NO_GRACE: Duration = Duration::from_secs(3);
/// Size of a pod's scratch disk; sparse, so it takes what is written.
const SCRATCH_BYTES: u64 = 10 << 30;

const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

/// A task to be created.
#[derive(Debug)]
pub(super) struct Create {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: Vec<Mount>,
    pub(super) streams: stdio::Request,
}

/// What a deletion answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deleted {
    pub(super) pid: u32,
    pub(super) exit: Exit,
}

impl Engine {
    /// Creates a task and answers its pid.
    pub(super) async fn create(self: &Arc<Self>, request: Create) -> Result<u32, Error> {
        let bundle = Bundle::load(&request.bundle)?;
        let own = request.id == self.settings.pod;
        match &bundle.role {
            Role::Sandbox if own => self.create_sandbox(&request, &bundle).await,
            Role::Single if own => self.create_single(&request, &bundle).await,
            Role::Container { sandbox } if *sandbox == self.settings.pod && !own => {
                self.create_member(&request, &bundle).await
            }
            Role::Sandbox | Role::Single | Role::Container { .. } => {
                Err(Error::OtherPod { pod: self.settings.pod.clone(), what: format!("task {}", request.id) })
            }
        }
    }

    async fn create_sandbox(self: &Arc<Self>, request: &Create, bundle: &Bundle) -> Result<u32, Error> {
        let (task, reservation) =
            self.reserve(&request.id, Kind::Sandbox, &bundle.directory, request.streams.clone())?;
        let pod = self.start_vm(&bundle.spec, false).await?;
        reservation.keep();
        let pid = self.created(&task, request, pod.vmm_pid());
        self.watch_sandbox(&pod, &task);
        Ok(pid)
    }

    async fn create_single(self: &Arc<Self>, request: &Create, bundle: &Bundle) -> Result<u32, Error> {
        let (task, reservation) =
            self.reserve(&request.id, Kind::Single, &bundle.directory, request.streams.clone())?;
        let pod = self.start_vm(&bundle.spec, true).await?;
        match self.make_container(&pod, &task, request, &bundle.spec).await {
            Ok(pid) => {
                reservation.keep();
                self.created(&task, request, pid);
                self.watch_process(&pod, &task.init);
                Ok(pid)
            }
            Err(error) => {
                self.remove_vm().await?;
                Err(error)
            }
        }
    }

    async fn create_member(self: &Arc<Self>, request: &Create, bundle: &Bundle) -> Result<u32, Error> {
        let pod = self.running_pod()?;
        let (task, reservation) =
            self.reserve(&request.id, Kind::Container, &bundle.directory, request.streams.clone())?;
        let pid = self.make_container(&pod, &task, request, &bundle.spec).await?;
        reservation.keep();
        self.created(&task, request, pid);
        self.watch_process(&pod, &task.init);
        Ok(pid)
    }

    async fn start_vm(self: &Arc<Self>, spec: &Spec, single_container: bool) -> Result<Arc<Pod>, Error> {
        let starting = self.starting_vm()?;
        let settings = &self.settings;
        let config = PodConfig {
            namespace: settings.namespace.clone(),
            id: settings.pod.clone(),
            state_dir: settings.dirs.shim_state(&settings.namespace, &settings.pod)?,
            data_dir: settings.dirs.pod_data(&settings.namespace, &settings.pod)?,
            scratch_template_dir: settings.dirs.scratch_template(),
            scratch_bytes: SCRATCH_BYTES,
            spec: spec.clone(),
            assets: Assets::find()?,
            cgroup: Placement::of_pod(spec, &settings.namespace, &settings.pod)?,
            single_container,
            deadlines: Deadlines::from_env(),
        };
        let started = Pod::start(config).await;
        let pod = started.map_err(|source| Error::Start { pod: settings.pod.clone(), source: Box::new(source) })?;
        starting.started(Arc::clone(&pod));
        self.watch_vm(&pod);
        Ok(pod)
    }

    async fn make_container(&self, pod: &Arc<Pod>, task: &Task, request: &Create, spec: &Spec) -> Result<u32, Error> {
        let images = images(&request.rootfs)?;
        let endpoints = self.open_streams(&task.init).await?;
        let wanted = wanted(&endpoints, request.streams.terminal);
        let (pid, streams) = pod.create_container(&task.id, spec, &images, wanted).await?;
        attach(&task.init, endpoints, streams);
        Ok(pid)
    }

    fn created(self: &Arc<Self>, task: &Task, request: &Create, pid: u32) -> u32 {
        let streams = &request.streams;
        let event = TaskCreate {
            container_id: task.id.clone(),
            bundle: task.bundle.to_string_lossy().into_owned(),
            rootfs: request.rootfs.clone(),
            io: Some(TaskIO {
                stdin: streams.stdin.clone(),
                stdout: streams.stdout.clone(),
                stderr: streams.stderr.clone(),
                terminal: streams.terminal,
                ..TaskIO::default()
            })
            .into(),
            pid,
            ..TaskCreate::default()
        };
        self.publish(topics::TASK_CREATE_EVENT_TOPIC, &event);
        task.init.set(Phase::Created { pid });
        pid
    }

    /// Starts a created task or a registered exec and answers its pid.
    pub(super) async fn start(self: &Arc<Self>, id: &str, exec: &str) -> Result<u32, Error> {
        let task = self.task(id)?;
        let process = task.process(exec)?;
        let before = process.advance("started", |phase| match phase {
            Phase::Created { pid } => Some(Phase::Starting { pid }),
            _ => None,
        })?;
        let started = match (task.kind, exec) {
            // Its VM has been running since its creation.
            (Kind::Sandbox, _) => Ok(before.pid()),
            (Kind::Container | Kind::Single, "") => self.start_init(&process, before.pid()).await,
            (Kind::Container | Kind::Single, _) => self.start_exec(&process).await,
        };
        match started {
            Ok(pid) => {
                if exec.is_empty() {
                    let event = TaskStart { container_id: id.to_owned(), pid, ..TaskStart::default() };
                    self.publish(topics::TASK_START_EVENT_TOPIC, &event);
                } else {
                    let (container_id, exec_id) = (id.to_owned(), exec.to_owned());
                    let event = TaskExecStarted { container_id, exec_id, pid, ..TaskExecStarted::default() };
                    self.publish(topics::TASK_EXEC_STARTED_EVENT_TOPIC, &event);
                }
                process.set(Phase::Running { pid });
                Ok(pid)
            }
            Err(error) => {
                process.set(Phase::Stopped { pid: before.pid(), exit: process::never_ran() });
                Err(error)
            }
        }
    }

    async fn start_init(&self, process: &Process, pid: u32) -> Result<u32, Error> {
        let pod = self.running_pod()?;
        pod.start_container(&process.container).await?;
        Ok(pid)
    }

    async fn start_exec(self: &Arc<Self>, process: &Arc<Process>) -> Result<u32, Error> {
        let pod = self.running_pod()?;
        let endpoints = self.open_streams(process).await?;
        let wanted = wanted(&endpoints, process.streams.terminal);
        let (Some(exec), Some(spec)) = (&process.exec, process.spec()) else {
            return Err(Error::Internal(format!("{} has no process", process.what())));
        };
        let (pid, streams) = pod.exec(&process.container, exec, spec, wanted).await?;
        attach(process, endpoints, streams);
        self.watch_process(&pod, process);
        Ok(pid)
    }

    /// Registers a further process of a running container.
    pub(super) fn exec(&self, id: &str, exec: &str, spec: oci::Process, streams: stdio::Request) -> Result<(), Error> {
        let task = self.task(id)?;
        if task.kind == Kind::Sandbox {
            return Err(Error::Invalid(format!("{id} is the pod itself; exec in one of its containers")));
        }
        if !matches!(task.init.phase(), Phase::Running { .. }) {
            return Err(task.init.wrong_phase("joined by a further process").into());
        }
        if [&streams.stdin, &streams.stdout, &streams.stderr].into_iter().any(|name| name == ATTACH) {
            return Err(Error::Invalid(format!("stream {ATTACH}: a further process cannot be attached to")));
        }
        let process = Process::further(id, exec, streams, spec);
        match task.execs().entry(exec.to_owned()) {
            std::collections::btree_map::Entry::Occupied(_) => return Err(Error::Exists(process.what())),
            std::collections::btree_map::Entry::Vacant(place) => place.insert(process),
        };
        let (container_id, exec_id) = (id.to_owned(), exec.to_owned());
        let event = TaskExecAdded { container_id, exec_id, ..TaskExecAdded::default() };
        self.publish(topics::TASK_EXEC_ADDED_EVENT_TOPIC, &event);
        Ok(())
    }

    /// Sends a signal; SIGTERM and SIGKILL to the sandbox stop the pod.
    pub(super) async fn kill(self: &Arc<Self>, id: &str, exec: &str, signal: u32, all: bool) -> Result<(), Error> {
        let task = self.task(id)?;
        let process = task.process(exec)?;
        match process.phase() {
            Phase::Stopped { .. } | Phase::Deleting { .. } | Phase::Deleted { .. } => {
                return Err(Error::Ended { what: process.what(), action: "signal" });
            }
            Phase::Created { .. } if !exec.is_empty() => return Err(process.wrong_phase("signalled").into()),
            Phase::Creating => return Err(process.wrong_phase("signalled").into()),
            Phase::Created { .. } | Phase::Starting { .. } | Phase::Running { .. } | Phase::Paused { .. } => {}
        }
        if task.kind == Kind::Sandbox {
            return self.stop_sandbox(&task, signal);
        }
        let pod = self.running_pod().map_err(|_| Error::Ended { what: process.what(), action: "signal" })?;
        Ok(pod.signal(id, process.exec.as_deref(), signal, all).await?)
    }

    /// Begins to stop the pod; its end is what Wait is for.
    fn stop_sandbox(self: &Arc<Self>, task: &Task, signal: u32) -> Result<(), Error> {
        let grace = match signal {
            SIGTERM => GRACE,
            SIGKILL => NO_GRACE,
            _ => {
                let id = &task.id;
                return Err(Error::Invalid(format!(
                    "signal {signal} to pod {id}: a pod takes only SIGTERM (15) and SIGKILL (9)"
                )));
            }
        };
        task.stopping.store(true, Ordering::Relaxed);
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            if let Vm::Running(pod) = engine.vm() {
                pod.stop(grace).await;
            }
        });
        Ok(())
    }

    /// Removes a stopped task or exec, or one that was never started.
    pub(super) async fn delete(self: &Arc<Self>, id: &str, exec: &str) -> Result<Deleted, Error> {
        let task = self.task(id)?;
        let process = task.process(exec)?;
        let before = process.advance("deleted", |phase| match phase {
            Phase::Created { pid } => Some(Phase::Deleting { pid, exit: None }),
            Phase::Stopped { pid, exit } => Some(Phase::Deleting { pid, exit: Some(exit) }),
            _ => None,
        })?;
        if exec.is_empty()
            && let Err(error) = self.remove(&task).await
        {
            // A later attempt may succeed.
            process.set(before);
            return Err(error);
        }
        process.close_streams().await;
        let deleted = Deleted { pid: before.pid(), exit: before.exit().unwrap_or_else(process::never_ran) };
        process.set(Phase::Deleted { exit: deleted.exit });
        if exec.is_empty() {
            self.forget(&task);
            let event = TaskDelete {
                container_id: id.to_owned(),
                pid: deleted.pid,
                exit_status: deleted.exit.code,
                exited_at: Some(to_timestamp(deleted.exit.at)).into(),
                ..TaskDelete::default()
            };
            self.publish(topics::TASK_DELETE_EVENT_TOPIC, &event);
        } else {
            self.remove_exec(id, exec);
            task.execs().remove(exec);
        }
        Ok(deleted)
    }

    /// Takes a task out of the guest, or the guest away.
    async fn remove(&self, task: &Task) -> Result<(), Error> {
        match task.kind {
            Kind::Container => {
                // With the VM everything of the container has gone.
                if let Vm::Running(pod) = self.vm() {
                    pod.remove_container(&task.id).await?;
                }
            }
            Kind::Sandbox | Kind::Single => self.remove_vm().await?,
        }
        let execs: Vec<_> = std::mem::take(&mut *task.execs()).into_values().collect();
        for exec in execs {
            exec.close_streams().await;
            exec.set(Phase::Deleted { exit: exec.phase().exit().unwrap_or_else(process::killed) });
        }
        Ok(())
    }

    /// Lets the guest's engine forget an exec, so that its id is free again.
    fn remove_exec(&self, id: &str, exec: &str) {
        if let Vm::Running(pod) = self.vm()
            && let Err(error) = pod.remove_exec(id, exec)
        {
            // One that never ran is not known there.
            tracing::debug!("{error}");
        }
    }

    /// Ends the VM, if it still runs, and removes all that it had on the host.
    async fn remove_vm(&self) -> Result<(), Error> {
        // Also when it has ended by itself: stopping waits until it has let go of what it had.
        if let Vm::Running(pod) | Vm::Ended { pod, .. } = self.vm() {
            pod.stop(NO_GRACE).await;
        }
        let settings = &self.settings;
        let (namespace, pod) = (settings.namespace.clone(), settings.pod.clone());
        let state = settings.dirs.shim_state(&namespace, &pod)?;
        let data = settings.dirs.pod_data(&namespace, &pod)?;
        let torn_down = tokio::task::spawn_blocking(move || husk_pod::teardown(&namespace, &pod, &state, &data)).await;
        Ok(torn_down.map_err(|error| Error::Internal(error.to_string()))??)
    }

    async fn open_streams(&self, process: &Process) -> Result<Endpoints, Error> {
        let owner = Owner { namespace: self.settings.namespace.clone(), container: process.container.clone() };
        Ok(Endpoints::open(&process.streams, &owner, self.settings.lifetime).await?)
    }
}

fn wanted(endpoints: &Endpoints, terminal: bool) -> StdioWanted {
    StdioWanted {
        stdin: endpoints.stdin.is_some(),
        stdout: endpoints.stdout.is_some(),
        stderr: endpoints.stderr.is_some(),
        terminal,
    }
}

fn attach(process: &Process, endpoints: Endpoints, streams: ProcessStreams) {
    process.attach(Pumps::start(endpoints, streams.stdin, streams.stdout, streams.stderr));
}

/// The root file system's images. Layers arrive as EROFS files; nothing else can be given to a VM without a shared file
/// system.
fn images(rootfs: &[Mount]) -> Result<Vec<DiskImage>, Error> {
    rootfs
        .iter()
        .enumerate()
        .map(|(index, mount)| {
            let path = Path::new(&mount.source);
            if mount.type_ != "erofs" {
                return Err(Error::Invalid(format!(
                    "rootfs[{index}] has type {:?}: only erofs images can be given to a VM; \
                     with containerd use its erofs snapshotter",
                    mount.type_
                )));
            }
            let more: Vec<&Path> =
                mount.options.iter().filter_map(|option| option.strip_prefix("device=")).map(Path::new).collect();
            if let Some(path) = std::iter::once(&path).chain(&more).find(|path| !path.is_absolute()) {
                return Err(Error::Invalid(format!("rootfs[{index}] {path:?}: not an absolute path")));
            }
            // As mount(8) has it: the image's own table says where each device's blocks belong, one after the other.
            Ok(DiskImage { path: path.to_owned(), more: more.into_iter().map(Path::to_owned).collect() })
        })
        .collect()
}
