//! `husk.shim.v1`, generated from `proto/pod.proto`, which documents it.

/// Messages of the service.
#[allow(warnings, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated code")]
mod pod {
    include!(concat!(env!("OUT_DIR"), "/pod.rs"));
}

#[allow(warnings, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated code")]
mod pod_ttrpc {
    use super::pod;
    include!(concat!(env!("OUT_DIR"), "/pod_ttrpc.rs"));
}

pub use pod::{
    AttachRequest, AttachResponse, ContainerInspect, DeviceIo, ForwardRequest, ForwardResponse, InspectRequest,
    InterfaceUsage, LayerUsage, PodInspect, PodStats, Pressure, PressureShare, ProcessInfo, ProcessesRequest,
    ProcessesResponse, ReopenLogRequest, ReopenLogResponse, ResizeRequest, ResizeResponse, Slot, State, StatsRequest,
    TimelineStep, Usage, UsageRequest,
};
pub use pod_ttrpc::{Pod, PodClient, create_pod};
