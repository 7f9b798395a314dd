//! How a container is confined, beside its capabilities and its user.

/// The filter of its system calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum SeccompPlan {
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A file below the directory of profiles, to be read before the pod is made.
    Localhost(String),
    /// A profile's text.
    Profile(String),
}

/// What it sees of the kernel's own file systems, and which devices it may open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exposure {
    /// All of the guest's devices that are nobody's in particular, and its /sys and cgroup for writing.
    pub(crate) privileged: bool,
    /// Nothing of /proc and /sys is hidden or write-protected.
    pub(crate) unmasked: bool,
}
