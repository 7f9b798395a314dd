//! The host's side of a pod's network.
//!
//! A pod's network namespace ([`NetNs`]) is furnished by CNI plugins ([`cni`]). What they made in it is read back and
//! handed on to a virtual machine by [`link`]: a tap is joined to the CNI interface with tc's `mirred` action, so that
//! frames pass the namespace's own stack by and the guest answers under the interface's addresses.
//!
//! The crate knows no virtual machine and no command line. Its asynchronous functions want a tokio runtime with I/O and
//! time enabled; what must happen inside a namespace happens on a thread of its own, so a caller's threads never change
//! theirs. Every removal is idempotent.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod cni;
mod ip;
pub mod link;
mod netns;
mod pod;

pub use ip::{BadIpNet, IpNet};
pub use netns::{NetNs, NetNsError, RUN_NETNS};
pub use pod::{AttachError, PodIdentity, PodNetwork};
