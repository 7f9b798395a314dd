//! What goes to the shim and what comes back, in plain Rust types.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;

/// A task to be made: the pod's sandbox or one of its containers.
#[derive(Clone, Debug, Default)]
pub struct CreateTask {
    pub id: String,
    /// Directory with `config.json`.
    pub bundle: PathBuf,
    /// EROFS images of the root file system, topmost first; none for a sandbox.
    pub rootfs: Vec<RootfsImage>,
    pub stdio: Stdio,
}

/// An EROFS image, perhaps in several files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootfsImage {
    /// Where it begins.
    pub path: PathBuf,
    /// The files that hold the devices of its table, in their order.
    pub devices: Vec<PathBuf>,
}

/// Where a process's standard streams go. `None` is `/dev/null`; otherwise the path of a FIFO, and for output
/// `file:///PATH`, `binary:///PATH?key=value` or `cri-log:///PATH`, for a container [`crate::ATTACH`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: Option<String>,
    pub stdout: Option<String>,
    /// Not with a terminal, whose output is all stdout.
    pub stderr: Option<String>,
    pub terminal: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// 0 to 255; 128 + signal when a signal ended it.
    pub code: u32,
    pub at: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
    Paused,
    Stopped,
    Unknown,
}

/// One task or exec as the shim sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskState {
    pub status: Status,
    /// In the guest's initial pid namespace; of a sandbox, the VMM's on the host.
    pub pid: u32,
    /// Of a stopped one.
    pub exit: Option<Exit>,
    pub terminal: bool,
}

/// Resource use of a task, from its cgroup in the guest. The sandbox's is the whole pod's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub cpu_usage_us: u64,
    pub cpu_user_us: u64,
    pub cpu_system_us: u64,
    pub memory_usage: u64,
    /// `u64::MAX` = no limit.
    pub memory_limit: u64,
    pub memory_anon: u64,
    pub memory_file: u64,
    pub memory_inactive_file: u64,
    /// Processes killed by the memory limit so far.
    pub oom_kill: u64,
    pub pids_current: u64,
    /// `u64::MAX` = no limit.
    pub pids_limit: u64,
    pub io: Vec<IoStats>,
    /// Of the whole pod, with the sandbox's.
    pub network: Vec<NetworkStats>,
}

/// Traffic of one interface of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NetworkStats {
    pub name: String,
    pub received_bytes: u64,
    pub received_packets: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
}

/// One process of a container, as the guest shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessInfo {
    /// In the guest's initial pid namespace, as `parent_pid`.
    pub pid: u32,
    pub parent_pid: u32,
    /// In the innermost pid namespace that it is in.
    pub container_pid: u32,
    pub uid: u32,
    pub gid: u32,
    /// R, S, D, T, Z, ...
    pub state: String,
    pub threads: u32,
    pub nice: i32,
    pub elapsed_ms: u64,
    pub cpu_ms: u64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    /// `pts/0`; empty when it has none.
    pub terminal: String,
    pub name: String,
    pub command: String,
}

/// Traffic with one block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IoStats {
    pub major: u64,
    pub minor: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_operations: u64,
    pub write_operations: u64,
}

/// The pod's VM and what became of its containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodInspect {
    pub id: String,
    /// `None` when the VM has ended.
    pub vmm_pid: Option<u32>,
    /// Of the VM, as it is now.
    pub memory_mib: u64,
    pub vcpus: u32,
    /// As large it can become while it runs.
    pub max_memory_mib: u64,
    pub max_vcpus: u32,
    pub kernel_release: String,
    /// When the shim started: the origin of the timeline.
    pub started_at: SystemTime,
    pub timeline: Vec<TimelineStep>,
    pub slots: Vec<Slot>,
    pub containers: Vec<ContainerInspect>,
    /// Why the VM ended.
    pub vm_ended: Option<String>,
}

/// What a pod takes of the host, by the host's count. Bytes and microseconds; a number that the host does not keep is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodStats {
    /// Below the cgroup v2 mount; empty when the pod lives in its starter's.
    pub cgroup: String,
    pub cpu_us: u64,
    pub cpu_user_us: u64,
    pub cpu_system_us: u64,
    pub cpu_throttled_us: u64,
    /// Guest, VMM, and what the host's kernel keeps for them.
    pub memory: u64,
    pub memory_peak: u64,
    /// `None` = no limit.
    pub memory_limit: Option<u64>,
    /// Of `memory`: what the guest has touched and the VMM's own.
    pub memory_anon: u64,
    /// Of `memory`: blocks of files that have not been used for a while.
    pub memory_inactive_file: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// Resident memory of the VMM process, the guest's included.
    pub vmm_resident: u64,
}

/// One step of the pod's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimelineStep {
    pub name: String,
    /// Microseconds since the shim's start.
    pub at_us: u64,
}

/// A filled virtio-mmio slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    pub index: u32,
    pub device: String,
    pub purpose: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerInspect {
    pub id: String,
    pub pid: u32,
    pub status: Status,
    pub exit: Option<Exit>,
    /// Processes of the container that were killed for want of memory.
    pub oom_kills: u64,
}
