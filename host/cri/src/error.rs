//! Why a request is refused or fails, and which gRPC code says it: kubelet decides by codes (cri-client `pkg/errors`).

use husk_client::{ConnectError, LaunchError, TaskError};
use husk_image::{LeaseError, LookupError};
use husk_net::AttachError;
use tonic::{Code, Status};

/// The failure of one request. The text names the object, the cause and, where there is one, the mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    NotFound(String),
    /// A name is taken, or an object is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The request contradicts itself, or asks for what cannot be honoured.
    #[error("{0}")]
    InvalidArgument(String),
    /// Not in this state.
    #[error("{0}")]
    FailedPrecondition(String),
    #[error("{0}")]
    DeadlineExceeded(String),
    #[error("{0}")]
    ResourceExhausted(String),
    #[error("{0}")]
    Unimplemented(String),
    #[error("{0}")]
    Internal(String),
}

impl Error {
    pub(crate) fn sandbox(id: &str) -> Self {
        Self::NotFound(format!("pod sandbox {id:?} is not there"))
    }

    pub(crate) fn container(id: &str) -> Self {
        Self::NotFound(format!("container {id:?} is not there"))
    }

    /// The same kind of error with what was being done before its text.
    pub(crate) fn context(self, what: impl std::fmt::Display) -> Self {
        let text = format!("{what}: {self}");
        match self {
            Self::NotFound(_) => Self::NotFound(text),
            Self::AlreadyExists(_) => Self::AlreadyExists(text),
            Self::InvalidArgument(_) => Self::InvalidArgument(text),
            Self::FailedPrecondition(_) => Self::FailedPrecondition(text),
            Self::DeadlineExceeded(_) => Self::DeadlineExceeded(text),
            Self::ResourceExhausted(_) => Self::ResourceExhausted(text),
            Self::Unimplemented(_) => Self::Unimplemented(text),
            Self::Internal(_) => Self::Internal(text),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::NotFound(_) => Code::NotFound,
            Error::AlreadyExists(_) => Code::AlreadyExists,
            Error::InvalidArgument(_) => Code::InvalidArgument,
            Error::FailedPrecondition(_) => Code::FailedPrecondition,
            Error::DeadlineExceeded(_) => Code::DeadlineExceeded,
            Error::ResourceExhausted(_) => Code::ResourceExhausted,
            Error::Unimplemented(_) => Code::Unimplemented,
            Error::Internal(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<TaskError> for Error {
    fn from(error: TaskError) -> Self {
        let text = error.to_string();
        match error {
            TaskError::NotFound(_) => Self::NotFound(text),
            TaskError::AlreadyExists(_) => Self::AlreadyExists(text),
            TaskError::FailedPrecondition(_) => Self::FailedPrecondition(text),
            TaskError::InvalidArgument(_) => Self::InvalidArgument(text),
            TaskError::Unimplemented(_) => Self::Unimplemented(text),
            TaskError::Unavailable(_) | TaskError::Internal(_) => Self::Internal(text),
        }
    }
}

impl From<LookupError> for Error {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Unknown { .. } => Self::NotFound(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}

/// Causes that are the node's, not the request's.
macro_rules! internal {
    ($($cause:ty),*) => {
        $(impl From<$cause> for Error {
            fn from(error: $cause) -> Self {
                Self::Internal(error.to_string())
            }
        })*
    };
}
internal!(LaunchError, ConnectError, AttachError, LeaseError, std::io::Error, serde_json::Error);
