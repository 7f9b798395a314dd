//! The agent's state: what every request and task works on. Its parts have locks of their own; none of them is held
//! while something is awaited that a container can delay.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use husk_agent_api::v1::{self, IdMaps, ResumeRequest};
use rustix::mount::MountFlags;
use tokio::sync::OnceCell;

use crate::boot::ports::HostPorts;
use crate::cgroup::Cgroup;
use crate::cgroup::limits::Limits;
use crate::container::Container;
use crate::container::control;
use crate::error::{Context, Error, Result};
use crate::events::EventLog;
use crate::launch::status::{Progress, StatusReceiver};
use crate::paths;
use crate::pod::slots::Slots;
use crate::pod::users::{UserNamespace, UserNamespaces};
use crate::pod::volumes::Volumes;
use crate::pod::{cpus, identity};
use crate::reaper::Reaper;
use crate::stdio::Streams;
use crate::zygote::Zygote;
use crate::zygote::client::{Client, Request};
use crate::zygote::message::{Job, Role};

/// How long the answer to Shutdown may take to leave the VM before the VM ends.
const FAREWELL: Duration = Duration::from_millis(30);

/// The agent.
#[derive(Debug)]
pub struct Agent {
    /// The pod's cgroup.
    pub cgroup: Cgroup,
    /// Makes processes.
    pub zygote: Client,
    /// What has happened.
    pub events: Arc<EventLog>,
    /// Standard streams.
    pub streams: Arc<Streams>,
    /// Devices.
    pub slots: Slots,
    /// Volumes and scratch disk.
    pub volumes: Volumes,
    /// Those of containers and mounts.
    users: UserNamespaces,
    /// Monotonic time when main began and when we began to listen, in microseconds.
    pub main_at_us: u64,
    /// See `main_at_us`.
    pub listening_at_us: u64,
    ports: HostPorts,
    identity: Mutex<Identity>,
    pod_pids: OnceCell<Arc<OwnedFd>>,
    containers: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug, Default)]
enum Identity {
    /// A clone that is nobody yet.
    #[default]
    Fresh,
    Resuming,
    Resumed,
    ShuttingDown,
}

#[derive(Debug)]
enum Entry {
    Creating,
    Ready(Arc<Container>),
}

/// What `boot` has prepared.
#[derive(Debug)]
pub struct Parts {
    /// The forked zygote.
    pub zygote: Zygote,
    /// The pod's cgroup.
    pub pod_cgroup: Cgroup,
    /// The ports that the VMM listens to.
    pub ports: HostPorts,
    /// Monotonic microseconds when main began.
    pub main_at_us: u64,
}

impl Agent {
    /// Starts the tasks that everything else relies on. Must be called within the runtime.
    pub fn start(parts: Parts) -> Result<Arc<Self>> {
        let reaper = Reaper::new();
        let zygote_ended = reaper.register(parts.zygote.pid);
        reaper.start()?;
        let zygote = Client::start(parts.zygote.channel, reaper)?;
        let ports = parts.ports;
        tokio::spawn(async move {
            let code = zygote_ended.await;
            crate::error!("the zygote has ended ({code:?}); no process can be made any more, so the VM ends");
            ports.exit(1);
        });
        let streams = Streams::new();
        Ok(Arc::new(Self {
            cgroup: parts.pod_cgroup,
            zygote,
            events: EventLog::new(),
            volumes: Volumes::new(Arc::clone(&streams)),
            streams,
            slots: Slots::new(),
            users: UserNamespaces::default(),
            main_at_us: parts.main_at_us,
            listening_at_us: monotonic_us(),
            ports,
            identity: Mutex::default(),
            pod_pids: OnceCell::new(),
            containers: Mutex::default(),
        }))
    }

    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what may only happen between Resume and Shutdown.
    pub fn check_resumed(&self) -> Result<()> {
        match &*self.identity() {
            Identity::Resumed => Ok(()),
            Identity::Fresh | Identity::Resuming => {
                Err(Error::precondition("the guest has no identity yet; call Resume first"))
            }
            Identity::ShuttingDown => Err(Error::precondition("the guest is shutting down")),
        }
    }

    /// PID 1 of the pid namespace that the pod's containers share. It belongs to the user namespace of the first one.
    pub async fn pod_pid_namespace(&self, users: Option<&UserNamespace>) -> Result<Arc<OwnedFd>> {
        self.pod_pids.get_or_try_init(|| self.start_pid_namespace(users)).await.cloned()
    }

    /// The user namespace with these maps, made if need be.
    pub async fn user_namespace(&self, maps: &IdMaps) -> Result<Arc<UserNamespace>> {
        self.users.of(&self.zygote, maps).await
    }

    /// Gives the guest its identity, once.
    pub async fn resume(&self, request: ResumeRequest) -> Result<()> {
        identity::check(&request)?;
        {
            let mut identity = self.identity();
            match &*identity {
                Identity::Fresh => *identity = Identity::Resuming,
                _ => return Err(Error::precondition("the guest has been resumed already")),
            }
        }
        let result = self.take_identity(request).await;
        let mut identity = self.identity();
        *identity = if result.is_ok() { Identity::Resumed } else { Identity::Fresh };
        result
    }

    async fn take_identity(&self, request: ResumeRequest) -> Result<()> {
        identity::seed(&request)?;
        if request.online_cpus > 0 {
            cpus::set_online(Path::new(cpus::CPUS), request.online_cpus)?;
        }
        identity::name(&request)?;
        if let Some(resources) = &request.resources {
            self.limits(resources).await?.apply(&self.cgroup)?;
        }
        Ok(())
    }

    /// Checks limits, and finds the devices that they name.
    pub async fn limits(&self, resources: &v1::Resources) -> Result<Limits> {
        let mut limits = Limits::new(resources)?;
        for rates in &resources.io_max {
            limits.throttle(self.slots.block_numbers(rates.slot).await?, rates);
        }
        // Weights cost every request some arithmetic, so nobody pays who has not asked for them.
        if limits.weighs_io()
            && let Some(slot) = self.volumes.scratch_slot()
        {
            let (major, minor) = self.slots.block_numbers(slot).await?;
            Cgroup::at(crate::paths::CGROUP).write("io.cost.qos", &format!("{major}:{minor} enable=1"))?;
        }
        Ok(limits)
    }

    async fn start_pid_namespace(&self, users: Option<&UserNamespace>) -> Result<Arc<OwnedFd>> {
        let (status, theirs) = StatusReceiver::pair()?;
        let mut request = Request::new(Job::Reaper);
        request.in_new_pid_namespace();
        if let Some(users) = users {
            request.give(Role::UserNamespace, users.fd.try_clone().on("dup", "user namespace")?);
        }
        request.give(Role::Status, theirs);
        // Not the agent's: containers share a process namespace with this process and, with the capability to trace it,
        // could join its cgroup namespace.
        let cgroup = Cgroup::at(paths::REAPER_CGROUP);
        if !cgroup.path().exists() {
            cgroup.create()?;
        }
        request.give(Role::Cgroup, cgroup.open()?);
        let spawned = self.zygote.spawn(request).await?;
        match status.next().await? {
            Progress::Ready => {}
            Progress::Failed(error) => return Err(error.during("shared process namespace")),
            Progress::Closed | Progress::Console(_) => {
                return Err(Error::Internal("shared process namespace: its reaper has ended".to_owned()));
            }
        }
        // It holds its end of the status socket for ever; we need ours no longer.
        tokio::spawn(async move {
            let code = spawned.exit.await;
            crate::error!("the reaper of the shared process namespace has ended ({code:?})");
        });
        Ok(Arc::new(spawned.pidfd))
    }

    /// A container by its id.
    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        match self.containers().get(id) {
            Some(Entry::Ready(container)) => Ok(Arc::clone(container)),
            Some(Entry::Creating) => Err(Error::precondition(format!("container {id} is being created"))),
            None => Err(Error::NotFound(format!("container {id} does not exist"))),
        }
    }

    /// Takes an id for a container that is being made.
    pub fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation> {
        let mut containers = self.containers();
        if containers.contains_key(id) {
            return Err(Error::AlreadyExists(format!("container {id} exists")));
        }
        containers.insert(id.to_owned(), Entry::Creating);
        drop(containers);
        Ok(Reservation { agent: Arc::clone(self), id: id.to_owned(), filled: false })
    }

    /// Frees the id of a container that has been removed.
    pub fn forget(&self, id: &str) {
        self.containers().remove(id);
    }

    /// Ends every container, puts the scratch disk in order, and lets the VM end soon after.
    pub async fn shut_down(self: &Arc<Self>) -> Result<()> {
        *self.identity() = Identity::ShuttingDown;
        let ids: Vec<String> = self.containers().keys().cloned().collect();
        let mut result = Ok(());
        // One kill for all, so that none waits for another's processes.
        result = result.and(self.cgroup.kill());
        let removals: Vec<_> = ids
            .into_iter()
            .map(|id| {
                let agent = Arc::clone(self);
                tokio::spawn(async move { control::remove(&agent, &id).await })
            })
            .collect();
        for removal in removals {
            result = result.and(removal.await.unwrap_or(Ok(())));
        }
        result = result.and(self.volumes.unmount_all(&self.slots).await);
        if let Err(error) = &result {
            crate::warning!("shutdown: {error}");
        }
        rustix::fs::sync();
        let ports = self.ports;
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            crate::info!("shutting down");
            ports.exit(0);
        });
        result
    }
}

/// An id that is taken until its container is there, or until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    agent: Arc<Agent>,
    id: String,
    filled: bool,
}

impl Reservation {
    /// The container is there.
    pub fn fill(mut self, container: Arc<Container>) {
        self.filled = true;
        self.agent.containers().insert(self.id.clone(), Entry::Ready(container));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.filled {
            self.agent.forget(&self.id);
        }
    }
}

/// Microseconds of the monotonic clock.
#[must_use]
pub fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000)
}

/// Mounts a tmpfs of the agent's own.
pub(crate) fn mount_tmpfs(target: &str, data: &std::ffi::CStr) -> Result<()> {
    rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, data).on("mount", target)
}
