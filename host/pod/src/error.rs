//! What the operations on a pod can fail with.

use std::path::PathBuf;

use tonic::Code;

use crate::agent::{AgentError, ConnectError, StreamError};
use crate::assets::AssetError;
use crate::devices::DeviceError;
use crate::host::{CgroupError, DirError, ScratchError, TreeError};
use crate::network::NetworkError;
use crate::shares::ShareError;
use crate::spec::SpecError;
use crate::vmm::VmmError;
use crate::volumes::VolumeError;

/// How a caller should answer to its own client; the words are gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    AlreadyExists,
    /// Not in this state.
    FailedPrecondition,
    /// The message names the field.
    InvalidArgument,
    DeadlineExceeded,
    /// The VM is gone.
    Unavailable,
    Internal,
}

/// Why a pod did not start. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "{what} {value:?} is not valid: 1 to 76 letters, digits, dots, underscores and hyphens, first a letter or digit"
    )]
    BadId { what: &'static str, value: String },
    #[error("pod {pod} already runs; stop and delete it first")]
    AlreadyRuns { pod: String },
    #[error(
        "the pod needs a VM of {needed} MiB (its memory limits and {overhead} MiB for the guest's kernel and agent), and \
         the host has {available} MiB available; lower the limits or end other pods"
    )]
    NoRoom { needed: u64, overhead: u64, available: u64 },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Assets(#[from] AssetError),
    #[error("{} cannot be opened: {source}; {mend}", path.display())]
    Kvm { path: PathBuf, source: std::io::Error, mend: &'static str },
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    #[error("cannot make the VM's vsock socket {}: {source}", path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Vmm(#[from] VmmError),
    #[error(
        "{source} (kernel {}, initramfs {}; HUSK_KERNEL and HUSK_INITRAMFS name others)",
        kernel.display(),
        initramfs.display()
    )]
    Image { kernel: PathBuf, initramfs: PathBuf, source: VmmError },
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("scratch disk: {0}")]
    ScratchDevice(#[source] DeviceError),
    #[error("the pod's network: {0}")]
    Network(#[from] NetworkError),
    #[error("the kernel gave no random numbers: {0}")]
    Random(#[source] std::io::Error),
    #[error("the pod's start was abandoned: {0}")]
    Abandoned(String),
}

impl StartError {
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadId { .. } | Self::Spec(_) | Self::Cgroup(CgroupError::Path { .. }) => ErrorKind::InvalidArgument,
            Self::AlreadyRuns { .. } => ErrorKind::AlreadyExists,
            Self::Assets(_)
            | Self::Kvm { .. }
            | Self::NoRoom { .. }
            | Self::Cgroup(CgroupError::NotMounted)
            | Self::Scratch(ScratchError::NoMkfs) => ErrorKind::FailedPrecondition,
            Self::Vmm(error) | Self::Image { source: error, .. } => vmm_kind(error),
            Self::Agent(error) => agent_kind(error),
            Self::ScratchDevice(error) => device_kind(error),
            Self::Network(error) => network_kind(error),
            _ => ErrorKind::Internal,
        }
    }
}

fn share_kind(error: &ShareError) -> ErrorKind {
    match error {
        ShareError::Tree(TreeError::Make { .. }) | ShareError::Descriptors(_) | ShareError::Random(_) => {
            ErrorKind::Internal
        }
        ShareError::Tree(_) => ErrorKind::FailedPrecondition,
        ShareError::Vmm { source, .. } => vmm_kind(source),
        ShareError::Agent { source, .. } => agent_kind(source),
    }
}

fn network_kind(error: &NetworkError) -> ErrorKind {
    match error {
        NetworkError::Host(_) => ErrorKind::FailedPrecondition,
        NetworkError::Vmm(error) => vmm_kind(error),
        NetworkError::Guest(error) => agent_kind(error),
    }
}

/// Why a container was not created. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(
        "container id {id:?} is not valid: 1 to 76 letters, digits, dots, underscores and hyphens, first a letter or digit"
    )]
    BadId { id: String },
    #[error("container {id} already exists in the pod")]
    AlreadyExists { id: String },
    #[error("container {id}: {source}")]
    Spec { id: String, source: SpecError },
    #[error("container {id} has no root file system image")]
    NoRootfs { id: String },
    #[error("container {id}: {source}")]
    Device { id: String, source: DeviceError },
    #[error("container {id}: {source}")]
    Volume { id: String, source: VolumeError },
    #[error("container {id}: {source}")]
    Agent { id: String, source: AgentError },
    #[error("container {id}: {source}")]
    Stream { id: String, source: StreamError },
    #[error("container {id}: its creation was abandoned: {why}")]
    Abandoned { id: String, why: String },
}

impl CreateError {
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadId { .. } | Self::Spec { .. } | Self::NoRootfs { .. } => ErrorKind::InvalidArgument,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::Device { source, .. } | Self::Volume { source: VolumeError::Device(source), .. } => {
                device_kind(source)
            }
            Self::Volume { source: VolumeError::Share(source), .. } => share_kind(source),
            Self::Volume { source: VolumeError::Conflict { .. }, .. } => ErrorKind::InvalidArgument,
            Self::Volume { source: VolumeError::ReadOnly { .. }, .. } => ErrorKind::FailedPrecondition,
            Self::Volume { source: VolumeError::Agent { source, .. }, .. } | Self::Agent { source, .. } => {
                agent_kind(source)
            }
            Self::Stream { source, .. } => stream_kind(source),
            Self::Abandoned { .. } => ErrorKind::Internal,
        }
    }
}

/// Why an operation on a container, or on a process of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("there is no container {container} in the pod")]
    NoContainer { container: String },
    #[error("there is no exec {exec} in container {container}")]
    NoExec { container: String, exec: String },
    #[error(
        "exec id {exec:?} is not valid: 1 to 76 letters, digits, dots, underscores and hyphens, first a letter or digit"
    )]
    BadId { exec: String },
    #[error("exec {exec} already exists in container {container}")]
    AlreadyExists { container: String, exec: String },
    #[error("container {container} is {state}; {action} is not possible")]
    State { container: String, state: &'static str, action: &'static str },
    #[error("container {container}: {source}")]
    Spec { container: String, source: SpecError },
    #[error("container {container}: {source}")]
    Agent { container: String, source: AgentError },
    #[error("container {container}: {source}")]
    Stream { container: String, source: StreamError },
    #[error("container {container}: {source}")]
    Resize { container: String, source: Box<ResizeError> },
    #[error("container {container}: the operation was abandoned: {why}")]
    Abandoned { container: String, why: String },
}

impl ProcessError {
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoContainer { .. } | Self::NoExec { .. } => ErrorKind::NotFound,
            Self::BadId { .. } | Self::Spec { .. } => ErrorKind::InvalidArgument,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::State { .. } => ErrorKind::FailedPrecondition,
            Self::Agent { source, .. } => agent_kind(source),
            Self::Stream { source, .. } => stream_kind(source),
            Self::Resize { source, .. } => source.kind(),
            Self::Abandoned { .. } => ErrorKind::Internal,
        }
    }
}

/// Why a port of the pod was not connected to.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("port 0 is none: choose one from 1 to 65535")]
    NoPort,
    #[error("nobody listens on port {port} in the pod: neither on 127.0.0.1 nor on [::1]")]
    NobodyListens { port: u16 },
    #[error("port {port}: {most} connections to ports of the pod are open, which is the most; close some first")]
    TooMany { port: u16, most: usize },
    #[error("port {port}: {source}")]
    Agent { port: u16, source: AgentError },
    #[error("port {port}: {source}")]
    Stream { port: u16, source: StreamError },
    #[error("the kernel gave no random numbers: {0}")]
    Random(#[source] std::io::Error),
}

impl ForwardError {
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoPort => ErrorKind::InvalidArgument,
            Self::NobodyListens { .. } | Self::TooMany { .. } => ErrorKind::FailedPrecondition,
            Self::Agent { source, .. } => agent_kind(source),
            Self::Stream { source, .. } => stream_kind(source),
            Self::Random(_) => ErrorKind::Internal,
        }
    }
}

/// Why a pod was not resized. It has the size that it had, or, where the guest frees less than it took, somewhat more.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("the pod's VM would need {wanted} CPUs and has at most {most}; ask for fewer, or make the pod anew")]
    Vcpus { wanted: u8, most: u8 },
    #[error(
        "the pod's VM would need {wanted} MiB (its limit and {overhead} MiB for the guest's kernel and agent) and can have \
         at most {most} MiB, the host's memory; ask for less"
    )]
    Memory { wanted: u64, most: u64, overhead: u64 },
    #[error(
        "the pod's VM would need {more} MiB more, and the host has {available} MiB available; ask for less or end other \
         pods"
    )]
    NoRoom { more: u64, available: u64 },
    #[error(
        "the pod's containers use {used} bytes of memory, more than the new limit of {wanted}; let them free some first"
    )]
    InUse { wanted: u64, used: u64 },
    #[error(
        "the guest's kernel has plugged only {taken} of {wanted} MiB, so the pod keeps its size; its console tells more"
    )]
    NotPlugged { wanted: u64, taken: u64 },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Vmm(#[from] VmmError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("the change of the pod's size was abandoned: {0}")]
    Abandoned(String),
}

impl ResizeError {
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Spec(_) => ErrorKind::InvalidArgument,
            Self::Vcpus { .. }
            | Self::Memory { .. }
            | Self::NoRoom { .. }
            | Self::InUse { .. }
            | Self::NotPlugged { .. } => ErrorKind::FailedPrecondition,
            Self::Vmm(error) => vmm_kind(error),
            Self::Agent(error) => agent_kind(error),
            Self::Cgroup(_) | Self::Abandoned(_) => ErrorKind::Internal,
        }
    }
}

fn agent_kind(error: &AgentError) -> ErrorKind {
    match error {
        AgentError::Ended(_) => ErrorKind::Unavailable,
        AgentError::Deadline { .. } => ErrorKind::DeadlineExceeded,
        AgentError::Version { .. } => ErrorKind::FailedPrecondition,
        AgentError::Answer { .. } => ErrorKind::Internal,
        AgentError::Refused { code, .. } => match code {
            Code::NotFound => ErrorKind::NotFound,
            Code::AlreadyExists => ErrorKind::AlreadyExists,
            Code::FailedPrecondition => ErrorKind::FailedPrecondition,
            Code::InvalidArgument => ErrorKind::InvalidArgument,
            Code::Unavailable => ErrorKind::Unavailable,
            Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
            _ => ErrorKind::Internal,
        },
    }
}

fn vmm_kind(error: &VmmError) -> ErrorKind {
    match error {
        VmmError::Ended(_) => ErrorKind::Unavailable,
        VmmError::Deadline { .. } | VmmError::NotReady { .. } => ErrorKind::DeadlineExceeded,
        VmmError::Refused { source, .. } => match source.kind {
            husk_vmm_control::ErrorKind::Invalid => ErrorKind::InvalidArgument,
            husk_vmm_control::ErrorKind::Kvm
            | husk_vmm_control::ErrorKind::Image
            | husk_vmm_control::ErrorKind::NoFreeSlot => ErrorKind::FailedPrecondition,
            _ => ErrorKind::Internal,
        },
        _ => ErrorKind::Internal,
    }
}

fn device_kind(error: &DeviceError) -> ErrorKind {
    match error {
        DeviceError::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        DeviceError::Open { .. } => ErrorKind::Internal,
        DeviceError::NotAFile { .. } | DeviceError::Size { .. } => ErrorKind::InvalidArgument,
        DeviceError::NoDevice { .. } => ErrorKind::NotFound,
        DeviceError::InUse { .. }
        | DeviceError::ReadOnly { .. }
        | DeviceError::Busy { .. }
        | DeviceError::Access { .. } => ErrorKind::FailedPrecondition,
        DeviceError::Vmm { source, .. } => vmm_kind(source),
        DeviceError::Agent { source, .. } => agent_kind(source),
    }
}

fn stream_kind(error: &StreamError) -> ErrorKind {
    match error {
        StreamError::Deadline { .. } => ErrorKind::DeadlineExceeded,
        StreamError::Connect { source: ConnectError::Io { .. }, .. } => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}
