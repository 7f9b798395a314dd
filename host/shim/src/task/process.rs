//! One process of the pod, from its creation to its deletion: a container's first process, a further one, or the sandbox
//! itself.
//!
//! Two things happen to a process without each other's knowledge: clients make it go through its [`Phase`]s, and the
//! guest says that it has exited. [`Process::settle`] brings them into order, so that nobody learns of an exit before
//! the start that came first, nor before the output that came first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use husk_client::Exit;
use oci_spec::runtime as oci;
use tokio::sync::watch;

use crate::stdio::{self, Pumps};

/// After an exit, output that has stopped flowing for this long is not waited for: a grandchild may hold the stream
/// open, or nobody reads it. It goes on being copied.
const IDLE: Duration = Duration::from_secs(2);
/// After an exit, output is waited for at most this long though it flows.
const FLOW: Duration = Duration::from_secs(10);
/// What containerd calls the exit of a process that never ran.
pub(super) const NEVER_RAN: u32 = 128;

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The guest is making it.
    Creating,
    /// Ready to be started. An exec is only registered and has no pid yet.
    Created {
        pid: u32,
    },
    /// The guest is starting it.
    Starting {
        pid: u32,
    },
    Running {
        pid: u32,
    },
    /// All processes of its container stand still.
    Paused {
        pid: u32,
    },
    Stopped {
        pid: u32,
        exit: Exit,
    },
    /// It is being removed, from Created or Stopped.
    Deleting {
        pid: u32,
        exit: Option<Exit>,
    },
    Deleted {
        exit: Exit,
    },
}

impl Phase {
    pub(super) fn pid(self) -> u32 {
        match self {
            Self::Creating | Self::Deleted { .. } => 0,
            Self::Created { pid }
            | Self::Starting { pid }
            | Self::Running { pid }
            | Self::Paused { pid }
            | Self::Stopped { pid, .. }
            | Self::Deleting { pid, .. } => pid,
        }
    }

    pub(super) fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped { exit, .. } | Self::Deleted { exit } => Some(exit),
            Self::Deleting { exit, .. } => exit,
            Self::Creating
            | Self::Created { .. }
            | Self::Starting { .. }
            | Self::Running { .. }
            | Self::Paused { .. } => None,
        }
    }

    /// For messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Creating => "being created",
            Self::Created { .. } => "created",
            Self::Starting { .. } => "being started",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Stopped { .. } => "stopped",
            Self::Deleting { .. } => "being deleted",
            Self::Deleted { .. } => "deleted",
        }
    }
}

/// What was asked cannot be done in this phase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {}: it cannot be {action}", .phase.name())]
pub(crate) struct WrongPhase {
    what: String,
    phase: Phase,
    action: &'static str,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) container: String,
    pub(super) exec: Option<String>,
    pub(super) streams: stdio::Request,
    /// What an exec runs; a container's first process is in its bundle.
    spec: Option<oci::Process>,
    phase: watch::Sender<Phase>,
    pumps: Mutex<Option<Arc<Pumps>>>,
}

impl Process {
    /// A container's first process, or the sandbox, which is about to be created.
    pub(super) fn first(container: &str, streams: stdio::Request) -> Arc<Self> {
        Arc::new(Self::new(container, None, streams, None, Phase::Creating))
    }

    /// A further process, which is only registered.
    pub(super) fn further(container: &str, exec: &str, streams: stdio::Request, spec: oci::Process) -> Arc<Self> {
        Arc::new(Self::new(container, Some(exec.to_owned()), streams, Some(spec), Phase::Created { pid: 0 }))
    }

    fn new(
        container: &str,
        exec: Option<String>,
        streams: stdio::Request,
        spec: Option<oci::Process>,
        phase: Phase,
    ) -> Self {
        Self {
            container: container.to_owned(),
            exec,
            streams,
            spec,
            phase: watch::Sender::new(phase),
            pumps: Mutex::new(None),
        }
    }

    pub(super) fn spec(&self) -> Option<&oci::Process> {
        self.spec.as_ref()
    }

    /// That it cannot be `action` as it is.
    pub(super) fn wrong_phase(&self, action: &'static str) -> WrongPhase {
        WrongPhase { what: self.what(), phase: self.phase(), action }
    }

    /// For messages.
    pub(super) fn what(&self) -> String {
        match &self.exec {
            Some(exec) => format!("exec {exec} of container {}", self.container),
            None => format!("container {}", self.container),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves to another phase if `next` allows it from the present one; answers the one before.
    pub(super) fn advance(
        &self,
        action: &'static str,
        next: impl FnOnce(Phase) -> Option<Phase>,
    ) -> Result<Phase, WrongPhase> {
        let mut result = None;
        self.phase.send_if_modified(|phase| {
            let before = *phase;
            let after = next(before);
            result = Some(match after {
                Some(_) => Ok(before),
                None => Err(WrongPhase { what: self.what(), phase: before, action }),
            });
            if let Some(after) = after {
                *phase = after;
            }
            after.is_some()
        });
        // `send_if_modified` calls its closure exactly once.
        result.unwrap_or_else(|| Err(self.wrong_phase(action)))
    }

    /// Moves to a phase that follows from whatever the present one is.
    pub(super) fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// The process has exited in the guest. Once nobody is in the midst of starting it and its output has arrived, it is
    /// stopped; answers its pid, or `None` when it had stopped, or was deleted, already.
    pub(super) async fn settle(&self, exit: Exit) -> Option<u32> {
        let settled = |phase: &Phase| !matches!(phase, Phase::Creating | Phase::Starting { .. });
        self.phase.subscribe().wait_for(settled).await.ok()?;
        if let Some(pumps) = self.pumps() {
            pumps.process_ended();
            pumps.drained_or_idle(IDLE, FLOW).await;
        }
        let before = self.advance("stopped", |phase| match phase {
            Phase::Created { pid } | Phase::Running { pid } | Phase::Paused { pid } => {
                Some(Phase::Stopped { pid, exit })
            }
            _ => None,
        });
        before.ok().map(Phase::pid)
    }

    /// Waits for the end that clients may know of.
    pub(super) async fn wait(&self) -> Exit {
        let mut phases = self.phase.subscribe();
        let exit = phases.wait_for(|phase| phase.exit().is_some()).await.ok().and_then(|phase| phase.exit());
        // The sender lives in `self`, so there is always an answer.
        exit.unwrap_or_else(never_ran)
    }

    pub(super) fn attach(&self, pumps: Pumps) {
        *self.pumps.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(pumps));
    }

    pub(super) fn pumps(&self) -> Option<Arc<Pumps>> {
        self.pumps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets what output there is arrive, within bounds, and ends the copying.
    pub(super) async fn close_streams(&self) {
        if let Some(pumps) = self.pumps() {
            pumps.drained_or_idle(IDLE, FLOW).await;
        }
        self.pumps.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The end of what never ran, or of what nobody saw end.
pub(super) fn never_ran() -> Exit {
    Exit { code: NEVER_RAN, at: SystemTime::now() }
}

/// The end of what the VM took with it.
pub(super) fn killed() -> Exit {
    Exit { code: 137, at: SystemTime::now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(phase: Phase) -> Arc<Process> {
        let process = Process::first("web", stdio::Request::default());
        process.set(phase);
        process
    }

    fn exit(code: u32) -> Exit {
        Exit { code, at: SystemTime::UNIX_EPOCH }
    }

    #[tokio::test]
    async fn an_exit_during_start_is_known_only_after_the_start() {
        let process = process(Phase::Starting { pid: 7 });
        let settling = tokio::spawn({
            let process = Arc::clone(&process);
            async move { process.settle(exit(3)).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(process.phase(), Phase::Starting { pid: 7 });
        process.advance("started", |_| Some(Phase::Running { pid: 7 })).unwrap();
        assert_eq!(settling.await.unwrap(), Some(7));
        assert_eq!(process.wait().await, exit(3));
    }

    #[tokio::test]
    async fn the_exit_of_what_is_being_deleted_is_nobodys() {
        let process = process(Phase::Deleting { pid: 7, exit: None });
        assert_eq!(process.settle(exit(137)).await, None);
    }

    #[tokio::test]
    async fn several_may_wait_and_late_ones_learn_it_too() {
        let process = process(Phase::Running { pid: 7 });
        let waiting = {
            let process = Arc::clone(&process);
            tokio::spawn(async move { process.wait().await })
        };
        process.settle(exit(1)).await;
        assert_eq!(waiting.await.unwrap(), exit(1));
        assert_eq!(process.wait().await, exit(1));
    }

    #[tokio::test]
    async fn what_is_deleted_before_its_start_ends_its_waiters() {
        let process = process(Phase::Created { pid: 7 });
        let waiting = {
            let process = Arc::clone(&process);
            tokio::spawn(async move { process.wait().await })
        };
        process.set(Phase::Deleted { exit: exit(NEVER_RAN) });
        assert_eq!(waiting.await.unwrap().code, NEVER_RAN);
    }

    #[test]
    fn a_refused_step_names_the_process_and_its_phase() {
        let process = process(Phase::Running { pid: 7 });
        let error = process.advance("started", |_| None).unwrap_err();
        assert_eq!(error.to_string(), "container web is running: it cannot be started");
    }
}
