//! One pod, one microVM: the engine that the shim drives.
//!
//! [`Pod::start`] makes a VM from a sandbox's OCI spec: directories, a scratch disk, a VMM process born in the pod's
//! cgroup, a booted guest with an identity. [`Pod::create_container`] and the other methods act on the containers in it
//! through the guest agent; [`Pod::events`] and [`Pod::wait`] tell what becomes of them. [`Pod::stop`] ends it, and
//! [`teardown`] removes all that any process may have left of it.
//!
//! Three rules hold everywhere. What a spec asks for is done or refused by name ([`SpecError`]). What the guest says is
//! hostile until checked. And nothing waits without a bound ([`Deadlines`]), least of all the end of a pod.
//!
//! The crate knows no containerd, no image store and no network; see `husk-shim`, `husk-image`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod agent;
mod assets;
mod deadlines;
mod devices;
mod entropy;
mod error;
mod host;
mod network;
mod pod;
mod shares;
mod sockets;
mod spec;
mod text;
mod vmm;
mod volumes;

pub use agent::{AgentError, ConnectError, ProcessStreams, StdioWanted, Stream, StreamError};
pub use assets::{AssetError, Assets};
pub use deadlines::{Deadlines, TIMEOUT_SCALE};
pub use devices::{DeviceError, DiskImage, SlotInfo};
pub use error::{CreateError, ErrorKind, ForwardError, ProcessError, ResizeError, StartError};
pub use host::{
    CgroupError, DirError, HostUsage, MAX_VCPUS, Placement, ScratchError, TeardownError, TreeError, VMM_OVERHEAD,
    teardown,
};
pub use husk_agent_api::v1;
pub use husk_vmm_control::{ExitReason, Status as VmmStatus, Timeline};
pub use pod::{
    BootTimeline, ContainerState, ContainerStatus, ExitStatus, FORWARDS_MAX, Forward, Pod, PodConfig, PodEvent, PodInfo,
};
pub use shares::ShareError;
pub use spec::{GUEST_OVERHEAD, SpecError, VmSize};
pub use vmm::{VmEndReason, VmEnded, VmmError};
pub use volumes::VolumeError;
