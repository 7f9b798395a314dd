//! A running pod: its VM, its containers, its end.
//!
//! [`start`] is the recipe of a pod, [`create`] that of a container; [`process`] acts on what runs, [`resize`] makes the
//! pod larger and smaller ([`size`] is what is known of that), [`forward`] connects to its ports, [`stop`] ends it. [`clock`] keeps the guest's wall clock in
//! step. [`table`] is what the host knows of containers, in the words of [`status`]: it never waits for the guest.

mod clock;
mod create;
mod forward;
mod process;
mod resize;
mod size;
mod start;
mod status;
mod stop;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Instant;

use husk_vmm_control::Timeline;
use oci_spec::runtime::Spec;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinHandle;

use crate::agent::Agent;
use crate::assets::Assets;
use crate::deadlines::Deadlines;
use crate::devices::{Devices, SlotInfo};
use crate::host::cgroup::Cgroup;
use crate::host::{HostUsage, Placement, ScratchDisk};
use crate::shares::Shares;
use crate::spec::{PodTraits, VmSize};
use crate::vmm::{VmEnded, Vmm, ended_now};
use crate::volumes::Volumes;

pub use forward::{FORWARDS_MAX, Forward};
pub use status::{ContainerState, ContainerStatus, ExitStatus, PodEvent};

use size::Size;
use table::Table;

/// What a pod is made from.
#[derive(Clone, Debug)]
pub struct PodConfig {
    pub namespace: String,
    pub id: String,
    /// The pod's own directory for small files, made if missing; removed by [`crate::teardown`].
    pub state_dir: PathBuf,
    /// The same for its scratch disk.
    pub data_dir: PathBuf,
    /// Shared by all pods of the node.
    pub scratch_template_dir: PathBuf,
    /// Size of the scratch disk: the limit of all that the pod's containers write, 16 MiB to 16 TiB.
    pub scratch_bytes: u64,
    /// The sandbox's spec, or the only container's.
    pub spec: Spec,
    pub assets: Assets,
    pub cgroup: Placement,
    /// The pod is one container, and `spec` is that container's.
    pub single_container: bool,
    pub deadlines: Deadlines,
}

/// When a start reached what, in microseconds since [`Pod::start`] was called, but for `vmm` and the guest's own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootTimeline {
    /// Directories, scratch image and cgroup were there and the VMM process started.
    pub vmm_spawned_us: u64,
    /// The VMM's own account, since its process began.
    pub vmm: Timeline,
    /// The host saw the agent's ready signal.
    pub ready_us: u64,
    /// The agent answered the first call.
    pub hello_us: u64,
    /// The guest had its identity, clock and entropy.
    pub resumed_us: u64,
    /// The guest's network interface was up; 0 in a pod without one.
    pub network_us: u64,
    /// The scratch disk was mounted: containers can come.
    pub scratch_us: u64,
    /// The guest's monotonic clock when the agent began, and when it listened.
    pub agent_main_us: u64,
    pub agent_listening_us: u64,
}

/// What is known of a pod without asking its VM.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub vmm_pid: u32,
    /// As it is now.
    pub size: VmSize,
    /// As large it can become while it runs.
    pub most: VmSize,
    pub timeline: BootTimeline,
    /// As the guest reports it.
    pub kernel_release: String,
    pub slots: Vec<SlotInfo>,
    pub containers: Vec<ContainerStatus>,
}

/// One pod: one VM with its containers. Dropping the last reference kills the VM; [`Pod::stop`] ends it in good order.
#[derive(Debug)]
pub struct Pod {
    /// `namespace/id`.
    name: String,
    deadlines: Deadlines,
    traits: PodTraits,
    size: Size,
    timeline: BootTimeline,
    kernel_release: String,
    vmm: Arc<Vmm>,
    agent: Agent,
    devices: Arc<Devices>,
    scratch: ScratchDisk,
    /// The least killable container's oom_score_adj, which is the VMM's too; `i32::MAX` before the first container.
    oom_score: AtomicI32,
    /// On the host; none: the starter's.
    cgroup: Option<Cgroup>,
    volumes: Volumes,
    shares: Shares,
    /// Places for connections to the pod's ports.
    forwards: Arc<Semaphore>,
    table: Arc<Table>,
    /// Becomes true when the VM is over and nothing but logs is left of it.
    released: watch::Receiver<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Pod {
    /// Process id of the VMM.
    #[must_use]
    pub fn vmm_pid(&self) -> u32 {
        self.vmm.pid()
    }

    /// `namespace/id`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pod at a glance. Never waits.
    #[must_use]
    pub fn info(&self) -> PodInfo {
        PodInfo {
            vmm_pid: self.vmm_pid(),
            size: self.size.now(),
            most: self.size.most(),
            timeline: self.timeline,
            kernel_release: self.kernel_release.clone(),
            slots: self.devices.list(),
            containers: self.table.list(),
        }
    }

    /// How many processes of a container were killed for want of memory so far. Never waits.
    #[must_use]
    pub fn oom_kills(&self, container: &str) -> u64 {
        self.table.list().iter().find(|status| status.id == container).map_or(0, |status| status.oom_kills)
    }

    /// What the pod takes of the host, by the host's count. Never waits.
    #[must_use]
    pub fn host_usage(&self) -> HostUsage {
        HostUsage::read(self.cgroup.as_ref(), self.vmm_pid())
    }

    /// Everything that happens from now on. A receiver that falls far behind misses events, for a guest may make any
    /// number of them; [`Pod::wait`] misses none.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<PodEvent> {
        self.table.subscribe()
    }

    /// Waits for the end of the VM.
    pub async fn ended(&self) -> Arc<VmEnded> {
        ended_now(&mut self.vmm.ended()).await
    }

    /// What the VMM says of its slots and connections, for diagnosis.
    pub async fn vmm_status(&self) -> Result<husk_vmm_control::Status, crate::VmmError> {
        self.vmm.status().await
    }
}

fn micros_since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}
