//! Containers and their processes.
//!
//! `check` refuses what cannot be honoured before anything is made, `create` makes a container and `root` its root file
//! system, `held` is everything
//! that it holds and gives back, `exec` adds processes, `control` signals them, `freeze` pauses them, `processes` tells
//! of them, `usage` counts what they take, `supervise` is the task that waits for its end. What runs inside of the new processes is `launch`.
//!
//! Each container has a task of its own and a state behind a lock that is never held across an await: whatever one
//! container does or does not do, no other one's request waits for it.

pub mod check;
pub mod control;
pub mod create;
pub mod exec;
pub mod freeze;
pub mod held;
pub mod processes;
mod root;
pub mod supervise;
pub mod usage;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use husk_agent_api::v1::{OutOfMemory, Rlimit, SeccompFilter, event::Kind};
use tokio::sync::{mpsc, oneshot};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::events::EventLog;
use crate::launch::status::StatusReceiver;
use crate::pod::users::UserNamespace;
use crate::stdio::End;

/// A container.
#[derive(Debug)]
pub struct Container {
    /// Chosen by the host.
    pub id: String,
    /// Holds all its processes.
    pub cgroup: Cgroup,
    /// Every process of it has this filter.
    pub seccomp: Option<SeccompFilter>,
    /// Every process of it is in it; none: in the guest's own.
    pub users: Option<Arc<UserNamespace>>,
    /// Of a further process that has none of its own.
    pub rlimits: Vec<Rlimit>,
    state: Mutex<State>,
    removals: mpsc::Sender<oneshot::Sender<Result<()>>>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    init: Process,
    execs: HashMap<String, ExecState>,
    ooms_told: u64,
}

/// How far a container is.
#[derive(Debug)]
enum Phase {
    /// Its init waits just before execve.
    Created { start: OwnedFd, status: StatusReceiver },
    /// Its init has been let go and has not executed its program yet.
    Starting,
    /// Its program runs.
    Running,
    /// All its processes stand still, or are about to.
    Paused,
    /// Its init has ended.
    Stopped,
}

#[derive(Debug)]
enum ExecState {
    /// The id is taken; the process sets itself up.
    Starting,
    Running(Process),
}

/// A process that the host knows by an id.
#[derive(Debug, Clone)]
pub struct Process {
    /// In the agent's pid namespace.
    pub pid: u32,
    /// Refers to it for ever.
    pub pidfd: Arc<OwnedFd>,
    /// Master of its pty.
    pub console: Option<End>,
    /// Token of its standard input, or 0.
    pub stdin: u64,
}

impl Container {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The init, unless it has ended.
    pub fn live_init(&self) -> Result<Process> {
        let state = self.state();
        match state.phase {
            Phase::Stopped => Err(Error::NotFound(format!("container {} has ended", self.id))),
            Phase::Created { .. } | Phase::Starting | Phase::Running | Phase::Paused => Ok(state.init.clone()),
        }
    }

    /// The process of that exec id, or the init for "".
    fn process(&self, exec_id: &str) -> Result<Process> {
        if exec_id.is_empty() {
            return self.live_init();
        }
        match self.state().execs.get(exec_id) {
            Some(ExecState::Running(process)) => Ok(process.clone()),
            Some(ExecState::Starting) => {
                Err(Error::precondition(format!("process {exec_id} of container {} is being started", self.id)))
            }
            None => Err(Error::NotFound(format!("container {} runs no process {exec_id}", self.id))),
        }
    }

    /// Sends an event for each OOM kill that has none yet, and returns how many there have been altogether.
    fn tell_ooms(&self, events: &EventLog) -> u64 {
        let count = self.cgroup.counter("memory.events", "oom_kill").unwrap_or(0);
        let mut state = self.state();
        let untold = count.saturating_sub(state.ooms_told);
        let capacity = u64::try_from(crate::events::CAPACITY).unwrap_or(u64::MAX);
        for back in (0..untold.min(capacity)).rev() {
            let oom_kill = count.saturating_sub(back);
            events.emit(Kind::Oom(OutOfMemory { container_id: self.id.clone(), oom_kill }));
        }
        state.ooms_told = state.ooms_told.max(count);
        state.ooms_told
    }
}
