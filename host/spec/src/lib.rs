//! What every container of Husk has in its OCI runtime spec, whichever front door made it: `husk` from a command line or a
//! manifest, `huskd` from what kubelet asks for.
//!
//! Here are the default mounts, the paths that are hidden, capability sets, the annotations that the shim reads,
//! resolv.conf, and names of signals. What a spec asks for beyond them is each door's own.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod annotation;
pub mod capabilities;
pub mod defaults;
pub mod resolv;
pub mod signals;

use std::path::{Path, PathBuf};

/// The pod's cgroup below `parent`: in the words of runtimes, which know slices of systemd by their colons.
#[must_use]
pub fn cgroup_path(parent: &str, pod_id: &str) -> PathBuf {
    let name = parent.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if name.ends_with(".slice") {
        return format!("{name}:husk:{pod_id}").into();
    }
    Path::new("/").join(parent).join(format!("husk-{pod_id}"))
}
