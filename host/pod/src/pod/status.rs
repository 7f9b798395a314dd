//! What a pod tells of its containers.

use std::sync::Arc;
use std::time::SystemTime;

use crate::vmm::VmEnded;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// 0 to 255; 128 + signal when a signal ended it, 137 when its VM did.
    pub code: u32,
    /// The container's memory limit killed a process of it meanwhile.
    pub oom_killed: bool,
    pub at: SystemTime,
}

/// What happens in a pod.
#[derive(Clone, Debug)]
pub enum PodEvent {
    Exited {
        container: String,
        /// `None` = the container's init.
        exec: Option<String>,
        status: ExitStatus,
    },
    /// The container's memory limit killed; `kills` counts since its creation.
    Oom { container: String, kills: u64 },
    /// Follows the exits of all that ran.
    VmEnded(Arc<VmEnded>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Creating,
    Created,
    Running,
    Stopped,
    Removing,
}

impl ContainerState {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Creating => "being created",
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Removing => "being removed",
        }
    }
}

/// One container at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    pub id: String,
    pub state: ContainerState,
    /// As the guest's initial pid namespace numbers it.
    pub pid: Option<u32>,
    pub exit: Option<ExitStatus>,
    pub oom_kills: u64,
}
