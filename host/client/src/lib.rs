//! Starting a pod's shim and talking to it.
//!
//! Every pod has one shim, `containerd-shim-husk-v2`, which is the only door to the pod. [`ShimLauncher`] starts it the
//! way containerd does, [`Shim`] speaks its two services: containerd's Task API v3, and `husk.shim.v1.Pod` for what
//! that API lacks. [`Fifos`] makes the named pipes that carry a process's streams.
//!
//! Nothing here knows images, manifests or networks; bundles arrive ready made.

mod dirs;
mod error;
mod fifo;
mod launch;
mod pod;
mod purge;
mod shim;
mod time;
mod types;
mod usage;

pub mod api;
pub mod bootstrap;

pub use dirs::{Dirs, InvalidId};
pub use error::{ConnectError, LaunchError, TaskError};
pub use fifo::{FifoStreams, Fifos, Wanted};
pub use launch::ShimLauncher;
pub use purge::still_there;
pub use shim::Shim;
pub use time::{from_timestamp, to_timestamp};
pub use types::{
    ContainerInspect, CreateTask, Exit, IoStats, NetworkStats, PodInspect, PodStats, ProcessInfo, RootfsImage, Slot,
    Stats, Status, Stdio, TaskState, TimelineStep,
};
pub use usage::{DeviceIo, InterfaceUsage, LayerUsage, Pressure, PressureShare, Usage};

/// Type URL under which containerd carries an OCI `process` object as JSON.
pub const PROCESS_TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// Type URL under which containerd carries an OCI `linux.resources` object as JSON.
pub const RESOURCES_TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// Type URL of the statistics that the shim answers, `io.containerd.cgroups.v2.Metrics`.
pub const METRICS_TYPE_URL: &str = "io.containerd.cgroups.v2.Metrics";
/// A stream of a container for whoever attaches ([`Shim::attach`]): input that stays open with nobody there, output that
/// goes to them alone.
pub const ATTACH: &str = "attach://";
