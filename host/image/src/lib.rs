//! Container images for Husk: from a registry or an archive to one read-only EROFS disk image in a
//! store.
//!
//! The way of an image, and where each step lives:
//!
//! 1. [`Reference`] says what is wanted; [`hosts`] and `registry` say where it is fetched,
//!    [`credentials`] who asks for it, or `archive` where it lies.
//! 2. `verify` reads manifest and config and holds every digest against what named it.
//! 3. [`layer`] decompresses each layer and merges its tar stream into a [`tree`]; nothing is ever
//!    unpacked onto the host's file system.
//! 4. [`erofs`] writes the tree as a disk image.
//! 5. [`Store`] keeps it, gives it names, and lends it out.
//!
//! All input is hostile: see [`Limits`] for what an image may ask, and the errors for what it may
//! not. Nothing here knows of pods, and nothing prints.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod archive;
pub mod credentials;
mod digest;
pub mod erofs;
mod error;
pub mod hosts;
pub mod layer;
mod limits;
pub mod login;
mod progress;
mod reference;
mod registry;
mod store;
pub mod tree;
mod user;
mod verify;

pub use archive::{ArchiveError, ArchiveProblem};
pub use digest::{Digest, DigestError};
pub use error::{BlobProblem, ContentError, DocumentProblem};
pub use limits::Limits;
pub use progress::{Event, Progress, Silent};
pub use reference::{Reference, ReferenceError, familiar};
pub use registry::RegistryError;
pub use store::{
    ArchiveSource, CheckError, Image, ImageId, ImageSummary, Lease, LeaseError, LoadError, LookupError, PruneOptions,
    Pruned, PullError, PullOptions, RemoveError, Removed, SaveError, Step, Store, StoreError, Usage,
};
pub use user::{ResolvedUser, UserError, resolve as resolve_user};
