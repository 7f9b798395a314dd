//! Why a request was refused, and the ttrpc status that says so.

use husk_client::InvalidId;
use husk_pod::{
    AssetError, CgroupError, CreateError, ErrorKind, ForwardError, ProcessError, ResizeError, StartError, TeardownError,
};
use ttrpc::{Code, get_status};

use super::process::WrongPhase;
use crate::bundle::BundleError;
use crate::stdio::{AttachError, OpenError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}: there is no such task in this pod")]
    NoTask(String),
    #[error("container {container} has no exec {exec}")]
    NoExec { container: String, exec: String },
    #[error("{0}: it exists already; delete it first or choose another id")]
    Exists(String),
    #[error("{what} has ended: there is nothing to {action}")]
    Ended { what: String, action: &'static str },
    #[error(transparent)]
    Phase(#[from] WrongPhase),
    #[error("pod {pod}: {reason}")]
    Vm { pod: String, reason: String },
    #[error("this is the shim of pod {pod}; {what} belongs elsewhere")]
    OtherPod { pod: String, what: String },
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Streams(#[from] OpenError),
    #[error("{0}")]
    Invalid(String),
    #[error("{0} is not supported: a pod's VM cannot be checkpointed in this version")]
    Unimplemented(&'static str),
    #[error("container {0}: its output does not go to a cri-log, so there is none to reopen")]
    NoLog(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Assets(#[from] AssetError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("pod {pod}: {source}")]
    Start { pod: String, source: Box<StartError> },
    #[error(transparent)]
    Create(Box<CreateError>),
    #[error(transparent)]
    Guest(Box<ProcessError>),
    #[error("pod {pod}: {source}")]
    Resize { pod: String, source: Box<ResizeError> },
    #[error("container {container}: {source}")]
    Attach { container: String, source: Box<AttachError> },
    #[error("pod {pod}: {source}")]
    Forward { pod: String, source: Box<ForwardError> },
    #[error(transparent)]
    Teardown(#[from] TeardownError),
    #[error("the shim failed inside: {0}; its log tells more")]
    Internal(String),
}

impl Error {
    fn code(&self) -> Code {
        match self {
            Self::NoTask(_) | Self::NoExec { .. } | Self::Ended { .. } => Code::NOT_FOUND,
            Self::Exists(_) => Code::ALREADY_EXISTS,
            Self::Phase(_) | Self::Vm { .. } | Self::NoLog(_) | Self::Assets(_) => Code::FAILED_PRECONDITION,
            Self::OtherPod { .. }
            | Self::Id(_)
            | Self::Bundle(_)
            | Self::Streams(_)
            | Self::Invalid(_)
            | Self::Cgroup(_) => Code::INVALID_ARGUMENT,
            Self::Unimplemented(_) => Code::UNIMPLEMENTED,
            Self::Io(_) | Self::Teardown(_) | Self::Internal(_) => Code::INTERNAL,
            Self::Start { source, .. } => code(source.kind()),
            Self::Create(source) => code(source.kind()),
            Self::Guest(source) => code(source.kind()),
            Self::Resize { source, .. } => code(source.kind()),
            Self::Forward { source, .. } => code(source.kind()),
            Self::Attach { source, .. } => match **source {
                AttachError::Open(_) => Code::INVALID_ARGUMENT,
                AttachError::NoStream { .. } | AttachError::InputEnded | AttachError::TooMany => {
                    Code::FAILED_PRECONDITION
                }
            },
        }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(get_status(error.code(), error))
    }
}

impl From<CreateError> for Error {
    fn from(error: CreateError) -> Self {
        Self::Create(Box::new(error))
    }
}

impl From<ProcessError> for Error {
    fn from(error: ProcessError) -> Self {
        Self::Guest(Box::new(error))
    }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NOT_FOUND,
        ErrorKind::AlreadyExists => Code::ALREADY_EXISTS,
        ErrorKind::FailedPrecondition => Code::FAILED_PRECONDITION,
        ErrorKind::InvalidArgument => Code::INVALID_ARGUMENT,
        ErrorKind::DeadlineExceeded => Code::DEADLINE_EXCEEDED,
        // Not UNAVAILABLE, which clients take for a shim that is gone: this one is here, its VM is not.
        ErrorKind::Unavailable => Code::FAILED_PRECONDITION,
        ErrorKind::Internal => Code::INTERNAL,
    }
}
