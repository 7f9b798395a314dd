//! What the shim knows: its pod's VM and its tasks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use containerd_shim_protos::protobuf::MessageFull;
use containerd_shim_protos::topics;
use husk_client::{Dirs, Exit, to_timestamp};
use husk_pod::{Pod, PodEvent};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::error::Error;
use super::process::{self, Phase, Process};
use crate::events::Publisher;
use crate::stdio::{self, Lifetime};

/// How often a shim looks whether anybody needs it, and how often it must have found that nobody does. Front doors
/// follow a start with a Create, and the last Delete with a Shutdown, in far less; one that died does neither.
const IDLE_CHECK: Duration = Duration::from_secs(15);
const IDLE_CHECKS: u32 = 4;
/// Exit code of a sandbox whose VM ended though nobody asked for it; what containerd calls unknown.
const UNASKED: u32 = 255;

/// What a shim is told when it starts.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) namespace: String,
    /// The pod's id, which is also its sandbox task's.
    pub(crate) pod: String,
    pub(crate) dirs: Dirs,
    pub(crate) lifetime: Lifetime,
    pub(crate) publisher: Publisher,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(super) settings: Settings,
    /// Held for look-ups and changes only, never while anything is waited for.
    state: Mutex<State>,
    over: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    vm: Vm,
    /// When the VM's start began, in microseconds since the shim's start.
    vm_requested_us: u64,
    /// In the order of creation. A pod has few.
    tasks: Vec<Arc<Task>>,
}

/// The pod's VM.
#[derive(Clone, Debug)]
pub(super) enum Vm {
    Absent,
    Starting,
    Running(Arc<Pod>),
    /// It has ended, by request or by itself.
    Ended {
        pod: Arc<Pod>,
        reason: String,
    },
}

/// What a task is to the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sandbox,
    Container,
    /// A container whose deletion ends the VM.
    Single,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) bundle: PathBuf,
    pub(super) init: Arc<Process>,
    execs: Mutex<BTreeMap<String, Arc<Process>>>,
    /// Its processes that were killed for want of memory.
    oom_kills: AtomicU64,
    /// Somebody asked for the sandbox's end.
    pub(super) stopping: AtomicBool,
}

impl Task {
    pub(super) fn process(&self, exec: &str) -> Result<Arc<Process>, Error> {
        if exec.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        let found = self.execs().get(exec).cloned();
        found.ok_or_else(|| Error::NoExec { container: self.id.clone(), exec: exec.to_owned() })
    }

    pub(super) fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn oom_kills(&self) -> u64 {
        self.oom_kills.load(Ordering::Relaxed)
    }
}

/// A task's place in the list while it is being created; given up when that fails.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    engine: &'a Engine,
    task: Option<Arc<Task>>,
}

impl Reservation<'_> {
    pub(super) fn keep(mut self) {
        self.task = None;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.engine.forget(&task);
            task.init.set(Phase::Deleted { exit: process::never_ran() });
        }
    }
}

/// The VM's place while it is being started; given up when that fails.
#[derive(Debug)]
pub(super) struct StartingVm<'a> {
    engine: &'a Engine,
    started: bool,
}

impl StartingVm<'_> {
    pub(super) fn started(mut self, pod: Arc<Pod>) {
        self.started = true;
        self.engine.state().vm = Vm::Running(pod);
    }
}

impl Drop for StartingVm<'_> {
    fn drop(&mut self) {
        if !self.started {
            self.engine.state().vm = Vm::Absent;
        }
    }
}

impl Engine {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            state: Mutex::new(State { vm: Vm::Absent, vm_requested_us: 0, tasks: Vec::new() }),
            over: watch::Sender::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn task(&self, id: &str) -> Result<Arc<Task>, Error> {
        self.find(id).ok_or_else(|| Error::NoTask(id.to_owned()))
    }

    fn find(&self, id: &str) -> Option<Arc<Task>> {
        self.state().tasks.iter().find(|task| task.id == id).cloned()
    }

    pub(super) fn tasks(&self) -> Vec<Arc<Task>> {
        self.state().tasks.clone()
    }

    /// Enters a task that is about to be created, so that a second creation of its id is refused.
    pub(super) fn reserve(
        &self,
        id: &str,
        kind: Kind,
        bundle: &Path,
        streams: stdio::Request,
    ) -> Result<(Arc<Task>, Reservation<'_>), Error> {
        let mut state = self.state();
        if *self.over.borrow() {
            let reason = "its shim is ending; start another".into();
            return Err(Error::Vm { pod: self.settings.pod.clone(), reason });
        }
        if state.tasks.iter().any(|task| task.id == id) {
            return Err(Error::Exists(format!("task {id}")));
        }
        let task = Arc::new(Task {
            id: id.to_owned(),
            kind,
            bundle: bundle.to_owned(),
            init: Process::first(id, streams),
            execs: Mutex::new(BTreeMap::new()),
            oom_kills: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        state.tasks.push(Arc::clone(&task));
        drop(state);
        Ok((Arc::clone(&task), Reservation { engine: self, task: Some(task) }))
    }

    pub(super) fn forget(&self, task: &Arc<Task>) {
        self.state().tasks.retain(|other| !Arc::ptr_eq(other, task));
    }

    pub(super) fn vm(&self) -> Vm {
        self.state().vm.clone()
    }

    /// The VM, if it can be spoken to.
    pub(super) fn running_pod(&self) -> Result<Arc<Pod>, Error> {
        let reason = match self.vm() {
            Vm::Running(pod) => return Ok(pod),
            Vm::Absent => "its sandbox has not been created".into(),
            Vm::Starting => "its VM is still starting".into(),
            Vm::Ended { reason, .. } => format!("its VM has ended: {reason}"),
        };
        Err(Error::Vm { pod: self.settings.pod.clone(), reason })
    }

    /// Enters a VM that is about to be started. A shim starts one in its life.
    pub(super) fn starting_vm(&self) -> Result<StartingVm<'_>, Error> {
        let mut state = self.state();
        if !matches!(state.vm, Vm::Absent) {
            let reason = "it has a VM already, and a shim starts only one".into();
            return Err(Error::Vm { pod: self.settings.pod.clone(), reason });
        }
        state.vm = Vm::Starting;
        state.vm_requested_us = u64::try_from(self.settings.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        drop(state);
        Ok(StartingVm { engine: self, started: false })
    }

    pub(super) fn vm_requested_us(&self) -> u64 {
        self.state().vm_requested_us
    }

    pub(super) fn publish<M: MessageFull>(&self, topic: &str, event: &M) {
        self.settings.publisher.publish(topic, event);
    }

    /// Waits for a process's exit in the guest, or the VM's end, and makes it known.
    pub(super) fn watch_process(self: &Arc<Self>, pod: &Arc<Pod>, process: &Arc<Process>) {
        let (engine, pod, process) = (Arc::clone(self), Arc::clone(pod), Arc::clone(process));
        tokio::spawn(async move {
            let exit = match pod.wait(&process.container, process.exec.as_deref()).await {
                Ok(status) => {
                    if status.oom_killed {
                        engine.note_ooms(&process.container, pod.oom_kills(&process.container).max(1));
                    }
                    Exit { code: status.code, at: status.at }
                }
                // Removed together with its container.
                Err(_) => process::killed(),
            };
            engine.exited(&process, exit).await;
        });
    }

    /// The same for the sandbox, whose end is the VM's.
    pub(super) fn watch_sandbox(self: &Arc<Self>, pod: &Arc<Pod>, task: &Arc<Task>) {
        let (engine, pod, task) = (Arc::clone(self), Arc::clone(pod), Arc::clone(task));
        tokio::spawn(async move {
            pod.ended().await;
            let code = if task.stopping.load(Ordering::Relaxed) { 0 } else { UNASKED };
            engine.exited(&task.init, Exit { code, at: SystemTime::now() }).await;
        });
    }

    async fn exited(&self, process: &Process, exit: Exit) {
        let Some(pid) = process.settle(exit).await else { return };
        tracing::info!("{} has ended with {}", process.what(), exit.code);
        let event = TaskExit {
            container_id: process.container.clone(),
            id: process.exec.clone().unwrap_or_else(|| process.container.clone()),
            pid,
            exit_status: exit.code,
            exited_at: Some(to_timestamp(exit.at)).into(),
            ..TaskExit::default()
        };
        self.publish(topics::TASK_EXIT_EVENT_TOPIC, &event);
    }

    /// Notes the VM's end, and every kill by a memory limit before it.
    pub(super) fn watch_vm(self: &Arc<Self>, pod: &Arc<Pod>) {
        let (engine, pod) = (Arc::clone(self), Arc::clone(pod));
        let mut events = pod.events();
        tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(PodEvent::Oom { container, kills }) => engine.note_ooms(&container, kills),
                    Ok(PodEvent::Exited { .. }) => {}
                    // Of kills that were missed the exits tell, too.
                    Err(RecvError::Lagged(_)) => {}
                    Ok(PodEvent::VmEnded(_)) | Err(RecvError::Closed) => break,
                }
            }
        });
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let ended = pod.ended().await;
            tracing::info!("{ended}");
            engine.state().vm = Vm::Ended { pod, reason: ended.to_string() };
        });
    }

    /// One event for each kill that is new among `kills`, but no more than a guest can make us send at a time.
    fn note_ooms(&self, container: &str, kills: u64) {
        const MOST: u64 = 64;
        let Some(task) = self.find(container) else { return };
        let known = task.oom_kills.fetch_max(kills, Ordering::Relaxed);
        for _ in 0..kills.saturating_sub(known).min(MOST) {
            let event = TaskOOM { container_id: container.to_owned(), ..TaskOOM::default() };
            self.publish(topics::TASK_OOM_EVENT_TOPIC, &event);
        }
    }

    /// Ends the shim when for a while there has been no task, or nobody can find it: its `socket` and its VM are gone,
    /// as after a `delete` from outside.
    pub(crate) fn end_when_idle(self: &Arc<Self>, socket: PathBuf) {
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let mut idle = 0;
            while idle < IDLE_CHECKS {
                tokio::time::sleep(IDLE_CHECK).await;
                let lost = !socket.exists() && !matches!(engine.vm(), Vm::Starting | Vm::Running(_));
                idle = if lost || engine.state().tasks.is_empty() { idle.saturating_add(1) } else { 0 };
            }
            tracing::warn!("nobody needs this shim: it ends");
            engine.over.send_replace(true);
        });
    }

    /// The shim shall end, unless tasks remain; whether it will.
    pub(super) fn end(&self) -> bool {
        let state = self.state();
        let idle = state.tasks.is_empty();
        if idle {
            // Still holding the state, so that no task is entered any more.
            self.over.send_replace(true);
        }
        drop(state);
        idle
    }

    /// Waits, within bounds, until containerd knows all that has happened.
    pub(crate) async fn flush_events(&self) {
        self.settings.publisher.flush().await;
    }

    /// Waits until the shim shall end.
    pub(crate) async fn over(&self) {
        // The sender lives in `self`.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}
