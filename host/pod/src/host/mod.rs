//! What a pod has on the host beside its VMM process: directories, a cgroup, a scratch disk.
//!
//! Everything here can be derived from the pod's namespace and id, so that it can be removed by a process that never
//! saw the pod ([`teardown`]), any number of times.

pub(crate) mod cgroup;
pub(crate) mod dirs;
pub(crate) mod limits;
pub(crate) mod room;
pub(crate) mod scratch;
pub(crate) mod teardown;
mod template;
pub(crate) mod tree;
mod usage;

pub use cgroup::{CgroupError, Placement};
pub use dirs::DirError;
pub use limits::VMM_OVERHEAD;
pub use room::MAX_VCPUS;
pub(crate) use scratch::ScratchDisk;
pub use scratch::ScratchError;
pub use teardown::{TeardownError, teardown};
pub use tree::TreeError;
pub use usage::HostUsage;
