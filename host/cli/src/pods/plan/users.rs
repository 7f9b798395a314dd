//! The user namespace of a container.

/// What its ids are in the guest. Not the host's: the pod is a machine of its own, so every pod has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsersPlan {
    pub(crate) uids: Vec<IdRange>,
    pub(crate) gids: Vec<IdRange>,
}

/// `size` ids of the container from `container` on are the guest's from `guest` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdRange {
    pub(crate) container: u32,
    pub(crate) guest: u32,
    pub(crate) size: u32,
}

impl Default for UsersPlan {
    /// As many ids as Kubernetes gives a pod, above those that the guest's own users have.
    fn default() -> Self {
        let all = IdRange { container: 0, guest: 65_536, size: 65_536 };
        Self { uids: vec![all], gids: vec![all] }
    }
}
