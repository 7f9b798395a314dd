//! OCI runtime specs turned into the agent's typed messages.
//!
//! On the host a container is always an OCI spec. Everything that it can ask for is either translated here or refused
//! with the field's name: nothing is dropped. One file per concern: [`process`], [`capabilities`], [`mounts`],
//! [`namespaces`], [`users`], [`clocks`], [`devices`], [`resources`], [`seccomp`], [`linux`] (what is refused as a whole),
//! [`sandbox`] (the pod's own part) and [`size`] (its VM's). This module knows no VM and does no I/O.

mod capabilities;
mod clocks;
mod container;
mod devices;
mod linux;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod sandbox;
mod seccomp;
mod size;
#[cfg(test)]
pub(crate) mod testing;
mod users;

pub(crate) use container::{ContainerPlan, PodTraits, container};
pub(crate) use devices::{BlockDevice, PlannedDevice};
pub(crate) use mounts::{DiskFs, HostTree, Medium, MountSource, PlannedMount, VolumeWanted};
pub(crate) use namespaces::{PidNamespace, no_such_task};
pub(crate) use process::process;
pub(crate) use resources::{Limits, resources};
pub(crate) use sandbox::{SandboxPlan, sandbox};
pub(crate) use size::{Ceiling, CpuLimit, SizeChange, memory_mib, plugged_mib, vcpus};
pub use size::{GUEST_OVERHEAD, VmSize};

use crate::text::printable;

/// A field of a spec that cannot be honoured. Clients map it to INVALID_ARGUMENT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The field means something that this version does not do.
    #[error("{field} = {value} is not supported: {why}")]
    Unsupported { field: String, value: String, why: String },
    /// The field contradicts the OCI runtime specification, the kernel or itself.
    #[error("{field} = {value} is not valid: {why}")]
    Invalid { field: String, value: String, why: String },
}

impl SpecError {
    fn unsupported(field: impl Into<String>, value: impl AsRef<str>, why: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), value: shown(value.as_ref()), why: why.into() }
    }

    fn invalid(field: impl Into<String>, value: impl AsRef<str>, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), value: shown(value.as_ref()), why: why.into() }
    }

    /// The field that was refused, in the words of config.json.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Unsupported { field, .. } | Self::Invalid { field, .. } => field,
        }
    }
}

/// The client's value as an error may show it.
fn shown(value: &str) -> String {
    if value.is_empty() { "\"\"".into() } else { printable(value, 128) }
}

/// Refuses `value` when it is there and says something.
fn refuse_text(field: &str, value: Option<&String>, why: &str) -> Result<(), SpecError> {
    match value {
        Some(text) if !text.is_empty() => Err(SpecError::unsupported(field, text, why)),
        _ => Ok(()),
    }
}

/// Refuses a collection that has members.
fn refuse_members<'a, C>(field: &str, value: Option<&'a C>, why: &str) -> Result<(), SpecError>
where
    &'a C: IntoIterator<IntoIter: ExactSizeIterator>,
{
    match value.map(|members| members.into_iter().len()) {
        Some(count @ 1..) => Err(SpecError::unsupported(field, format!("{count} entries"), why)),
        _ => Ok(()),
    }
}

/// Refuses a value whose presence alone means something.
fn refuse_some<T>(field: &str, value: Option<&T>, why: &str) -> Result<(), SpecError> {
    match value {
        Some(_) => Err(SpecError::unsupported(field, "(set)", why)),
        None => Ok(()),
    }
}

/// Checks a path inside the container: absolute, no NUL, at most PATH_MAX. `..` is left to the agent, which resolves
/// every path below the container's root.
fn container_path(field: &str, path: &str) -> Result<String, SpecError> {
    const PATH_MAX: usize = 4096;
    if !path.starts_with('/') {
        return Err(SpecError::invalid(field, path, "it must be an absolute path"));
    }
    if path.len() >= PATH_MAX || path.contains('\0') {
        return Err(SpecError::invalid(field, path, "a path has fewer than 4096 bytes and no NUL"));
    }
    Ok(path.to_owned())
}

/// A `PathBuf` of the spec as text; JSON gives nothing else, but the type allows it.
fn path_text<'a>(field: &str, path: &'a std::path::Path) -> Result<&'a str, SpecError> {
    path.to_str().ok_or_else(|| SpecError::invalid(field, path.to_string_lossy(), "it is not UTF-8"))
}
