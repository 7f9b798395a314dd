//! From a layer's bytes to changes of a [`Tree`](crate::tree::Tree): decompression, the tar stream,
//! whiteouts.
//!
//! Everything here reads hostile input. A layer can make this code refuse it, never panic, never
//! use memory or time out of proportion, and never name a path of the host: contents go to the
//! [`SpoolWriter`](crate::tree::SpoolWriter), names into the tree. Digests are checked by the
//! readers in [`verify`](crate::verify), limits are [`Limits`](crate::Limits).

mod compression;
mod merge;
mod path;
mod pax;
mod sparse;
mod tar;

pub use compression::{Compression, decompress};
pub use merge::{LayerProblem, Merger};
pub use path::PathProblem;
pub use tar::TarProblem;

pub(crate) use path::components;
pub(crate) use tar::{EntryKind, Reader, Source};
