//! What the host knows of a pod's containers.
//!
//! Short critical sections of an ordinary mutex; nobody waits for the guest while holding it. Exits are kept in watch
//! channels, so that any number of waiters see them, now or later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{broadcast, watch};

use super::status::{ContainerState, ContainerStatus, ExitStatus, PodEvent};
use crate::agent::GuestEvent;
use crate::devices::Lease;
use crate::error::ProcessError;
use crate::shares::ShareLease;
use crate::vmm::VmEnded;
use crate::volumes::DiskLease;

/// Events that a slow receiver may be behind.
const EVENTS: usize = 1024;
/// 128 + SIGKILL: what the end of the VM is to a process.
const KILLED: u32 = 137;

/// What a container holds of the pod.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    pub(super) images: Vec<Lease>,
    pub(super) disks: Vec<DiskLease>,
    pub(super) shares: Vec<ShareLease>,
}

#[derive(Debug)]
struct Process {
    pid: Option<u32>,
    exit: watch::Sender<Option<ExitStatus>>,
}

impl Process {
    fn new() -> Self {
        Self { pid: None, exit: watch::Sender::new(None) }
    }

    fn has_exited(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Whether this was the first word of it.
    fn exited(&self, status: ExitStatus) -> bool {
        self.exit.send_if_modified(|exit| exit.is_none().then(|| *exit = Some(status)).is_some())
    }
}

#[derive(Debug)]
struct Container {
    state: ContainerState,
    init: Process,
    execs: BTreeMap<String, Process>,
    oom_kills: u64,
    holdings: Holdings,
}

#[derive(Debug)]
pub(super) struct Table {
    containers: Mutex<BTreeMap<String, Container>>,
    events: broadcast::Sender<PodEvent>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { containers: Mutex::default(), events: broadcast::Sender::new(EVENTS) }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<PodEvent> {
        self.events.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Container>> {
        // Nothing panics while it is held.
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the id. False when it is taken.
    pub(super) fn begin(&self, id: &str) -> bool {
        let mut containers = self.lock();
        if containers.contains_key(id) {
            return false;
        }
        let container = Container {
            state: ContainerState::Creating,
            init: Process::new(),
            execs: BTreeMap::new(),
            oom_kills: 0,
            holdings: Holdings::default(),
        };
        containers.insert(id.to_owned(), container);
        true
    }

    pub(super) fn created(&self, id: &str, pid: u32, holdings: Holdings) {
        if let Some(container) = self.lock().get_mut(id) {
            container.init.pid = Some(pid);
            container.holdings = holdings;
            container.state =
                if container.init.has_exited() { ContainerState::Stopped } else { ContainerState::Created };
        }
    }

    pub(super) fn started(&self, id: &str) {
        if let Some(container) = self.lock().get_mut(id)
            && container.state == ContainerState::Created
        {
            container.state = ContainerState::Running;
        }
    }

    pub(super) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Checks that the container exists and is in one of `states`.
    pub(super) fn expect(&self, id: &str, states: &[ContainerState], action: &'static str) -> Result<(), ProcessError> {
        let containers = self.lock();
        let container = find(&containers, id)?;
        if states.contains(&container.state) {
            return Ok(());
        }
        Err(ProcessError::State { container: id.into(), state: container.state.word(), action })
    }

    /// Marks the container as going and takes what it holds. `None` when it is not there or is going already.
    pub(super) fn begin_removal(&self, id: &str) -> Result<Option<Holdings>, ProcessError> {
        let mut containers = self.lock();
        let Some(container) = containers.get_mut(id) else { return Ok(None) };
        match container.state {
            ContainerState::Creating | ContainerState::Removing => {
                Err(ProcessError::State { container: id.into(), state: container.state.word(), action: "removing" })
            }
            _ => {
                container.state = ContainerState::Removing;
                Ok(Some(std::mem::take(&mut container.holdings)))
            }
        }
    }

    /// The removal failed: it can be tried again.
    pub(super) fn cancel_removal(&self, id: &str, holdings: Holdings) {
        if let Some(container) = self.lock().get_mut(id) {
            container.holdings = holdings;
            container.state =
                if container.init.has_exited() { ContainerState::Stopped } else { ContainerState::Running };
        }
    }

    pub(super) fn begin_exec(&self, id: &str, exec: &str) -> Result<(), ProcessError> {
        let mut containers = self.lock();
        let container = find_mut(&mut containers, id)?;
        if container.state != ContainerState::Running {
            let state = container.state.word();
            return Err(ProcessError::State { container: id.into(), state, action: "exec" });
        }
        if container.execs.contains_key(exec) {
            return Err(ProcessError::AlreadyExists { container: id.into(), exec: exec.into() });
        }
        container.execs.insert(exec.to_owned(), Process::new());
        Ok(())
    }

    pub(super) fn exec_started(&self, id: &str, exec: &str, pid: u32) {
        if let Some(process) = self.lock().get_mut(id).and_then(|container| container.execs.get_mut(exec)) {
            process.pid = Some(pid);
        }
    }

    pub(super) fn forget_exec(&self, id: &str, exec: &str) {
        if let Some(container) = self.lock().get_mut(id) {
            container.execs.remove(exec);
        }
    }

    /// Sees the end of a process, whenever it is.
    pub(super) fn exit_of(
        &self,
        id: &str,
        exec: Option<&str>,
    ) -> Result<watch::Receiver<Option<ExitStatus>>, ProcessError> {
        let containers = self.lock();
        let container = find(&containers, id)?;
        match exec {
            None => Ok(container.init.exit.subscribe()),
            Some(exec) => match container.execs.get(exec) {
                Some(process) => Ok(process.exit.subscribe()),
                None => Err(ProcessError::NoExec { container: id.into(), exec: exec.into() }),
            },
        }
    }

    /// Takes an event of the guest. What names none of our processes, or one that has already ended, is dropped.
    pub(super) fn receive(&self, event: GuestEvent) {
        let event = match event {
            GuestEvent::Exited { container, exec, code, oom_killed, at } => {
                let status = ExitStatus { code, oom_killed, at };
                self.exited(&container, exec.as_deref(), status).then_some(PodEvent::Exited { container, exec, status })
            }
            GuestEvent::Oom { container, kills } => {
                self.oom(&container, kills).then_some(PodEvent::Oom { container, kills })
            }
        };
        match event {
            // Without receivers nobody wants to know.
            Some(event) => drop(self.events.send(event)),
            None => tracing::debug!("event of the guest for no process of ours dropped"),
        }
    }

    fn exited(&self, id: &str, exec: Option<&str>, status: ExitStatus) -> bool {
        let mut containers = self.lock();
        let Some(container) = containers.get_mut(id) else { return false };
        match exec {
            Some(exec) => container.execs.get(exec).is_some_and(|process| process.exited(status)),
            None => {
                let first = container.init.exited(status);
                if first && matches!(container.state, ContainerState::Created | ContainerState::Running) {
                    container.state = ContainerState::Stopped;
                }
                first
            }
        }
    }

    /// Whether the count has grown.
    fn oom(&self, id: &str, kills: u64) -> bool {
        match self.lock().get_mut(id) {
            Some(container) if kills > container.oom_kills => {
                container.oom_kills = kills;
                true
            }
            _ => false,
        }
    }

    /// The VM is over: so is everything in it.
    pub(super) fn vm_ended(&self, end: &Arc<VmEnded>) {
        let status = ExitStatus { code: KILLED, oom_killed: false, at: SystemTime::now() };
        let mut gone = Vec::new();
        for (id, container) in self.lock().iter_mut() {
            for (exec, process) in &container.execs {
                if process.exited(status) {
                    gone.push((id.clone(), Some(exec.clone())));
                }
            }
            if container.init.exited(status) {
                gone.push((id.clone(), None));
            }
            if matches!(container.state, ContainerState::Created | ContainerState::Running) {
                container.state = ContainerState::Stopped;
            }
        }
        for (container, exec) in gone {
            let _ = self.events.send(PodEvent::Exited { container, exec, status });
        }
        let _ = self.events.send(PodEvent::VmEnded(Arc::clone(end)));
    }

    /// The container whose init has this pid in the guest and has not ended.
    pub(super) fn container_of(&self, pid: u32) -> Option<String> {
        let containers = self.lock();
        let live = |container: &Container| matches!(container.state, ContainerState::Created | ContainerState::Running);
        let mut found = containers.iter().filter(|(_, container)| container.init.pid == Some(pid) && live(container));
        found.next().map(|(id, _)| id.clone())
    }

    pub(super) fn list(&self) -> Vec<ContainerStatus> {
        self.lock()
            .iter()
            .map(|(id, container)| ContainerStatus {
                id: id.clone(),
                state: container.state,
                pid: container.init.pid,
                exit: *container.init.exit.borrow(),
                oom_kills: container.oom_kills,
            })
            .collect()
    }
}

fn find<'a>(containers: &'a BTreeMap<String, Container>, id: &str) -> Result<&'a Container, ProcessError> {
    containers.get(id).ok_or_else(|| ProcessError::NoContainer { container: id.into() })
}

fn find_mut<'a>(containers: &'a mut BTreeMap<String, Container>, id: &str) -> Result<&'a mut Container, ProcessError> {
    containers.get_mut(id).ok_or_else(|| ProcessError::NoContainer { container: id.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::VmEndReason;

    fn running(id: &str) -> Table {
        let table = Table::new();
        assert!(table.begin(id));
        table.created(id, 7, Holdings::default());
        table.started(id);
        table
    }

    fn exit(container: &str, exec: Option<&str>, code: u32) -> GuestEvent {
        let exec = exec.map(str::to_owned);
        GuestEvent::Exited { container: container.into(), exec, code, oom_killed: false, at: SystemTime::now() }
    }

    fn end() -> Arc<VmEnded> {
        let reason = VmEndReason::Process("signal: 9".into());
        Arc::new(VmEnded { pod: "ns/p".into(), reason, console: Vec::new(), vmm_log: Vec::new() })
    }

    #[test]
    fn an_id_is_taken_once() {
        let table = Table::new();
        assert!(table.begin("a"));
        assert!(!table.begin("a"));
        table.forget("a");
        assert!(table.begin("a"));
    }

    #[test]
    fn an_exit_counts_once_and_is_seen_later() {
        let table = running("a");
        let mut events = table.subscribe();
        table.receive(exit("a", None, 3));
        table.receive(exit("a", None, 4));
        assert!(matches!(events.try_recv(), Ok(PodEvent::Exited { status: ExitStatus { code: 3, .. }, .. })));
        assert!(events.try_recv().is_err());
        assert_eq!(table.exit_of("a", None).unwrap().borrow().unwrap().code, 3);
        assert_eq!(table.list().first().unwrap().state, ContainerState::Stopped);
    }

    #[test]
    fn forged_ids_are_dropped() {
        let table = running("a");
        let mut events = table.subscribe();
        table.receive(exit("b", None, 0));
        table.receive(exit("a", Some("x"), 0));
        table.receive(GuestEvent::Oom { container: "b".into(), kills: 1 });
        assert!(events.try_recv().is_err());
        assert_eq!(table.list().first().unwrap().state, ContainerState::Running);
    }

    #[test]
    fn every_oom_kill_is_an_event_and_a_repeated_count_is_none() {
        let table = running("a");
        let mut events = table.subscribe();
        for kills in [1, 2, 2, 1, 3] {
            table.receive(GuestEvent::Oom { container: "a".into(), kills });
        }
        for expected in [1, 2, 3] {
            assert!(matches!(events.try_recv(), Ok(PodEvent::Oom { kills, .. }) if kills == expected));
        }
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn the_end_of_the_vm_ends_every_process() {
        let table = running("a");
        table.begin_exec("a", "e").unwrap();
        let mut events = table.subscribe();
        table.vm_ended(&end());
        assert_eq!(table.exit_of("a", Some("e")).unwrap().borrow().unwrap().code, KILLED);
        assert_eq!(table.exit_of("a", None).unwrap().borrow().unwrap().code, KILLED);
        assert!(matches!(events.try_recv(), Ok(PodEvent::Exited { exec: Some(_), .. })));
        assert!(matches!(events.try_recv(), Ok(PodEvent::Exited { exec: None, .. })));
        assert!(matches!(events.try_recv(), Ok(PodEvent::VmEnded(_))));
    }

    #[test]
    fn states_forbid_what_they_must() {
        let table = Table::new();
        table.begin("a");
        assert!(table.begin_removal("a").is_err());
        table.created("a", 7, Holdings::default());
        assert!(matches!(table.begin_exec("a", "e"), Err(ProcessError::State { .. })));
        table.started("a");
        table.begin_exec("a", "e").unwrap();
        assert!(matches!(table.begin_exec("a", "e"), Err(ProcessError::AlreadyExists { .. })));
        let holdings = table.begin_removal("a").unwrap().unwrap();
        assert!(table.begin_removal("a").is_err());
        table.cancel_removal("a", holdings);
        assert!(table.begin_removal("a").unwrap().is_some());
        assert!(table.begin_removal("none").unwrap().is_none());
    }

    #[test]
    fn a_pid_names_a_container_until_it_ends() {
        let table = running("a");
        assert_eq!((table.container_of(7), table.container_of(8)), (Some("a".to_owned()), None));
        table.receive(exit("a", None, 0));
        assert_eq!(table.container_of(7), None);
    }

    #[test]
    fn an_init_that_ends_before_its_creation_is_answered_is_stopped() {
        let table = Table::new();
        table.begin("a");
        table.receive(exit("a", None, 1));
        table.created("a", 7, Holdings::default());
        assert_eq!(table.list().first().unwrap().state, ContainerState::Stopped);
    }
}
