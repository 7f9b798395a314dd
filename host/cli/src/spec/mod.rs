//! From plans to OCI runtime specs, the `config.json` of each bundle.
//!
//! Here is what a container gets when nobody says otherwise: its mounts, capabilities, masked paths, limits and
//! environment, as podman and containerd give them. Two mount types are Husk's own, `husk.volume` for a volume of the
//! pod and `husk.disk` for a disk image of the host; what else is the host's is a `bind`. What the guest cannot honour is refused by the shim, not here.

mod container;
mod devices;
mod mounts;
mod process;
pub(crate) mod resources;
mod sandbox;
mod security;
mod users;

use thiserror::Error;

pub(crate) use container::{ContainerInputs, container};
pub(crate) use mounts::Places;
pub(crate) use process::{ExecInputs, ImageFacts, exec_process};
pub(crate) use sandbox::sandbox;
pub(crate) use users::users_of;

/// Annotations by which the shim knows what a bundle is: containerd's own names, and Husk's.

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum SpecError {
    #[error("container {container}: the image has no command to run, and none was given")]
    NoCommand { container: String },
    #[error("container {container}: it would run as root (uid 0) and runAsNonRoot forbids that: set runAsUser")]
    Root { container: String },
    #[error("container {container}: \"{name}\" is no capability (examples: NET_BIND_SERVICE, ALL)")]
    Capability { container: String, name: String },
    #[error("container {container}: \"{name}\" is no resource limit (examples: nofile, nproc, core)")]
    Rlimit { container: String, name: String },
    #[error("container {container}: working directory \"{directory}\" is no absolute path")]
    WorkingDirectory { container: String, directory: String },
    #[error("container {container}: what is to be mounted at {destination} is no volume of the pod")]
    Mount { container: String, destination: String },
    #[error("container {container}: its seccomp profile cannot be used: {why}")]
    Seccomp { container: String, why: String },
    #[error("container {container}: the device {device} cannot be given: {why}")]
    Device { container: String, device: String, why: String },
}

#[cfg(test)]
mod tests;
