//! From what CRI asks for to OCI runtime specs, the `config.json` of each bundle.
//!
//! What a guest cannot honour is refused: here, where only CRI says it, else by the shim, with the field's name.

mod container;
mod mounts;
mod process;
mod resources;
mod sandbox;
mod security;
mod user;

pub use container::{Inputs, container};
pub use mounts::{MountedImage, prepare as prepare_mounts};
pub use process::exec_process;
pub use resources::{merged, resources};
pub use sandbox::{sandbox, validate as validate_sandbox};
pub use security::check_linux as check_container;
pub use user::{ContainerUser, user};

use crate::api::{Int64Value, NamespaceMode};
use crate::error::Error;

/// A number of CRI that must be an id.
fn id(field: &str, value: i64) -> Result<u32, Error> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Error::InvalidArgument(format!("{field} = {value}: ids are from 0 to {}", u32::MAX - 1)))
}

fn optional_id(field: &str, value: Option<&Int64Value>) -> Result<Option<u32>, Error> {
    value.map(|value| id(field, value.value)).transpose()
}

/// An enumeration's value; what this version does not know is refused.
fn mode(field: &str, value: i32) -> Result<NamespaceMode, Error> {
    NamespaceMode::try_from(value)
        .map_err(|_| Error::InvalidArgument(format!("{field} = {value}: there is no such namespace mode")))
}
