//! Which code an error has for kubelet. The prefixes are those of cri-api's `pkg/errors`; cri-client only looks at them
//! under the code `Unknown`, and shows other messages of that code as they are.

use husk_image::{ContentError, LookupError, PullError, ReferenceError, RegistryError, StoreError};
use tonic::Status;

/// Kubelet tells the user so, and that it is not the image's fault.
const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";

pub(super) fn reference(error: &ReferenceError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn store(error: &StoreError) -> Status {
    Status::internal(error.to_string())
}

pub(super) fn lookup(error: &LookupError) -> Status {
    let text = error.to_string();
    match error {
        LookupError::Unknown(_) => Status::not_found(text),
        LookupError::Ambiguous { .. } => Status::invalid_argument(text),
        LookupError::Damaged { .. } | LookupError::Store(_) => Status::internal(text),
    }
}

pub(super) fn pull(error: &PullError) -> Status {
    let text = error.to_string();
    match error {
        PullError::Registry(error) => match error {
            RegistryError::NotFound { .. } => Status::not_found(text),
            RegistryError::Unavailable { .. } => Status::unknown(format!("{REGISTRY_UNAVAILABLE}: {text}")),
            RegistryError::Credentials(_) => Status::invalid_argument(text),
            RegistryError::Hosts(_) | RegistryError::Client { .. } => Status::failed_precondition(text),
            RegistryError::Incomplete { .. } => Status::unknown(text),
            RegistryError::Content(error) => content(error),
        },
        PullError::Content(error) => content(error),
        PullError::Store(error) => store(error),
        PullError::Lookup(LookupError::Unknown(_)) => {
            Status::aborted("the image was removed while it was pulled: pull it again")
        }
        PullError::Lookup(error) => lookup(error),
        PullError::Interrupted(_) => Status::aborted(text),
    }
}

fn content(error: &ContentError) -> Status {
    let text = error.to_string();
    match error {
        ContentError::Document { .. } | ContentError::Layer { .. } => Status::unknown(text),
        ContentError::Host { .. } | ContentError::Write { .. } => Status::internal(text),
    }
}
