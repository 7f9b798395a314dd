//! From a layer's bytes to changes of a [`Tree`](crate::tree::Tree): decompression, the tar stream,
//! whiteouts.
//!
//! A layer is first taken apart as it streams in ([`Stored::split`]), which needs no other layer, and
//! later merged with those below it ([`Merger`]), which needs none of its contents.
//!
//! Everything here reads hostile input. A layer can make this code refuse it, never panic, never
//! use memory or time out of proportion, and never name a path of the host: contents go to the
//! layer's own two files, names into the tree. Digests are checked by the readers in
//! [`verify`](crate::verify), limits are [`Limits`](crate::Limits).

mod budget;
mod compression;
mod merge;
mod path;
mod pax;
mod place;
mod problem;
mod sparse;
mod stored;
mod tar;

pub use compression::{Compression, decompress};
pub use merge::{Merged, Merger};
pub use path::PathProblem;
pub use problem::{EntryProblem, LayerProblem};
pub use stored::Stored;
pub use tar::TarProblem;

pub(crate) use path::components;
pub(crate) use tar::{EntryKind, Reader, Source};
