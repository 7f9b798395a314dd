//! Why a shim could not be started, reached, or refused a request.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use ttrpc::Code;

use crate::dirs::InvalidId;

/// Why a shim did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(
        "containerd-shim-husk-v2 was found neither beside {} nor in PATH: install it there or set HUSK_SHIM to its path",
        .beside.display()
    )]
    NotFound { beside: PathBuf },
    #[error("{}: cannot be run: {source}; HUSK_SHIM names another", .binary.display())]
    Spawn { binary: PathBuf, source: io::Error },
    #[error("shim of pod {pod} did not start ({status}): {message}")]
    Failed { pod: String, status: ExitStatus, message: String },
    #[error("shim of pod {pod} did not answer within {seconds} s; its log is shim.log in its state directory")]
    TimedOut { pod: String, seconds: u64 },
    #[error(
        "shim of pod {pod} answered its start with {answer:?}, which is no address: are client and shim of one version?"
    )]
    Answer { pod: String, answer: String },
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Why a shim could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Its socket is missing or nobody listens: the shim has ended or died.
    #[error("pod {pod} is not running: nobody listens on {}", .socket.display())]
    NotRunning { pod: String, socket: PathBuf },
    #[error("shim of pod {pod}: connecting to {}: {source}", .socket.display())]
    Io { pod: String, socket: PathBuf, source: io::Error },
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// A refused or failed request; the text is the shim's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    /// Not in this state, for instance a start of what has already run.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The bundle or the request asks for what cannot be honoured; the text names the field.
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0}")]
    Unimplemented(String),
    /// The shim has gone or its connection broke: its pod has ended or must be cleaned up.
    #[error("the pod's shim is gone: {0}")]
    Unavailable(String),
    #[error("{0}")]
    Internal(String),
}

impl From<ttrpc::Error> for TaskError {
    fn from(error: ttrpc::Error) -> Self {
        let ttrpc::Error::RpcStatus(status) = error else {
            // Everything else is the transport: the shim closes its socket only when it ends.
            return Self::Unavailable(error.to_string());
        };
        let code = status.code();
        let message = status.message;
        match code {
            Code::NOT_FOUND => Self::NotFound(message),
            Code::ALREADY_EXISTS => Self::AlreadyExists(message),
            Code::FAILED_PRECONDITION => Self::FailedPrecondition(message),
            Code::INVALID_ARGUMENT | Code::OUT_OF_RANGE => Self::InvalidArgument(message),
            Code::UNIMPLEMENTED => Self::Unimplemented(message),
            Code::UNAVAILABLE => Self::Unavailable(message),
            _ => Self::Internal(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use ttrpc::error::get_rpc_status;

    use super::*;

    #[test]
    fn a_status_keeps_its_kind_and_message() {
        let error = TaskError::from(get_rpc_status(Code::NOT_FOUND, "container web: no such container"));
        assert_eq!(error, TaskError::NotFound("container web: no such container".into()));
    }

    #[test]
    fn a_broken_connection_is_a_shim_that_is_gone() {
        assert!(matches!(TaskError::from(ttrpc::Error::RemoteClosed), TaskError::Unavailable(_)));
        assert!(matches!(TaskError::from(ttrpc::Error::Socket("EPIPE".into())), TaskError::Unavailable(_)));
    }
}
