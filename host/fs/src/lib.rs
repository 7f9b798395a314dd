//! A file server that speaks FUSE (`include/uapi/linux/fuse.h`, version 7.39) over directory trees of the host.
//!
//! The trees ("exports") are handed over as `O_PATH` descriptors and appear as entries of one synthetic root. The
//! client is a guest kernel and may be hostile. Two rules keep it inside what was exported:
//!
//! - Every name that it sends is one component, checked ([`name`]), and is resolved against the descriptor of a
//!   directory with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)`. No path is ever put
//!   together, so there is nothing that a rename on the host could redirect.
//! - What a lookup found is kept as an `O_PATH` descriptor ([`node`]). Everything later concerns that object, whatever
//!   its name leads to by then.
//!
//! The transport is not here: [`Server::serve`] takes a [`Source`] and a [`Sink`], so that the data of READ and WRITE
//! can go straight between a file and the guest's memory.
//!
//! **Who asks.** The guest's kernel checks permissions (its virtio-fs always mounts with `default_permissions`), because
//! it alone knows the caller's groups. The server acts with its own process's credentials, and gives what it makes to
//! the caller. Switching to the caller's uid for each request would refuse what a supplementary group allows (a pod's
//! `fsGroup`), and would be no wall against a guest, which can claim any uid.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod export;
mod handle;
mod host;
mod io;
mod name;
mod node;
mod numbers;
mod operations;
mod server;
mod wire;

#[cfg(test)]
mod tests;

pub use export::ExportError;
pub use io::{Sink, Source};
pub use server::{Limits, MAX_WRITE, Server, ServerError};
