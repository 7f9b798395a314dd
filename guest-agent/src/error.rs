//! The one error of the agent's operations: which gRPC status it is, and a sentence that names call, object and cause.

use rustix::io::Errno;
use tonic::{Code, Status};

/// What went wrong, as the host will see it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Nothing of that name exists (any more).
    #[error("{0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// The object is in the wrong state for the request.
    #[error("{0}")]
    FailedPrecondition(String),
    /// A field of the request cannot be honoured; the message says which.
    #[error("{0}")]
    InvalidArgument(String),
    /// A limit of the agent itself is reached.
    #[error("{0}")]
    Exhausted(String),
    /// A system call failed.
    #[error("{call} {object}: {errno}")]
    System {
        /// The call.
        call: &'static str,
        /// What it was called on.
        object: String,
        /// Why it failed.
        errno: Errno,
    },
    /// Something failed that is not one system call.
    #[error("{0}")]
    Internal(String),
}

/// Shorthand of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A refused field.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::InvalidArgument(message.into())
    }

    /// A refusal because of the present state.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::FailedPrecondition(message.into())
    }

    /// The gRPC code that stands for this error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::FailedPrecondition(_) => Code::FailedPrecondition,
            Self::InvalidArgument(_) => Code::InvalidArgument,
            Self::Exhausted(_) => Code::ResourceExhausted,
            Self::System { .. } | Self::Internal(_) => Code::Internal,
        }
    }

    /// The error of a given code: how one crosses from a container's launching process to the agent.
    #[must_use]
    pub fn from_code(code: Code, message: String) -> Self {
        match code {
            Code::NotFound => Self::NotFound(message),
            Code::AlreadyExists => Self::AlreadyExists(message),
            Code::FailedPrecondition => Self::FailedPrecondition(message),
            Code::InvalidArgument => Self::InvalidArgument(message),
            Code::ResourceExhausted => Self::Exhausted(message),
            _ => Self::Internal(message),
        }
    }

    /// The same error with what was being done in front of it.
    #[must_use]
    pub fn during(self, what: impl std::fmt::Display) -> Self {
        let code = self.code();
        Self::from_code(code, format!("{what}: {self}"))
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Names the call and its object on a failed system call.
pub trait Context<T> {
    /// `call` is the system call's name and `object` what it was given.
    fn on(self, call: &'static str, object: impl std::fmt::Display) -> Result<T>;
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn on(self, call: &'static str, object: impl std::fmt::Display) -> Result<T> {
        self.map_err(|errno| Error::System { call, object: object.to_string(), errno })
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn on(self, call: &'static str, object: impl std::fmt::Display) -> Result<T> {
        self.map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => Error::System { call, object: object.to_string(), errno },
            None => Error::Internal(format!("{call} {object}: {error}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_names_call_object_and_cause() {
        let error = Err::<(), _>(Errno::NOENT).on("openat2", "/etc/passwd").unwrap_err();
        assert!(error.to_string().starts_with("openat2 /etc/passwd: No such file"), "{error}");
        assert_eq!(Status::from(error).code(), Code::Internal);
    }

    #[test]
    fn context_keeps_the_code() {
        let error = Error::precondition("not running").during("exec \"a\"");
        assert_eq!(error.to_string(), "exec \"a\": not running");
        assert_eq!(error.code(), Code::FailedPrecondition);
    }
}
