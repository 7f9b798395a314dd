//! A deterministic writer of EROFS images from a [`Tree`].
//!
//! Format: `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h` of Linux 6.12, whose
//! reader is the authority. Used here: 4096-byte blocks, superblock checksum, compact and extended
//! inodes, flat files with and without an inline tail, chunk-based files for holes, inline
//! extended attributes. Not used: compression, shared attributes, several devices.
//!
//! ```text
//! 0      1024          1152                                    aligned to 4096
//! | zero | superblock  | inodes, attributes, inline tails, maps | directory blocks, file blocks |
//! ```
//!
//! The same tree gives the same bytes: order, layout and addresses depend on names and contents
//! alone. [`plan`] decides where everything goes, [`writer`] streams it out in that order, so
//! memory is bounded by the number of nodes, never by their contents.

mod dirent;
mod inode;
mod plan;
mod superblock;
mod writer;
pub mod xattr;

use std::fs::File;

use thiserror::Error;

use crate::tree::{Spool, Tree};

pub(crate) use plan::chunk_map_len;

/// Size of a block; the image is a multiple of it.
pub const BLOCK: u64 = 4096;

/// [`BLOCK`] for lengths in memory.
const BLOCK_LEN: usize = 4096;

/// What the tree does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// The volume's UUID. To keep images deterministic derive it from their content.
    pub uuid: [u8; 16],
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Length of the image in bytes.
    pub bytes: u64,
    /// Inodes in it.
    pub inodes: u64,
}

/// Why an image could not be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Reading contents or writing the image failed.
    #[error("the EROFS image cannot be written: {0}; see that the disk has room and is writable")]
    Io(#[from] std::io::Error),
    /// EROFS cannot hold the tree.
    #[error("the EROFS image cannot be written: {0}")]
    Tree(#[from] TreeLimit),
}

/// What EROFS cannot hold.
#[derive(Debug, Error)]
pub enum TreeLimit {
    /// Metadata or data beyond 2^32 blocks.
    #[error("the tree needs more blocks than EROFS counts")]
    TooLarge,
    /// An extended attribute does not fit.
    #[error(transparent)]
    Xattr(#[from] xattr::XattrError),
    /// The tree names one directory twice, or itself.
    #[error("a directory has more than one name")]
    SharedDirectory,
}

/// Writes `tree`, whose contents are in `spool`, to the empty file `out`. Does not sync it.
///
/// `progress` is told bytes written and their total, a few times for each MiB at most.
///
/// # Errors
/// [`WriteError`]; `out` then holds nothing of use.
pub fn write(
    tree: &Tree,
    spool: &Spool,
    out: &File,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written, WriteError> {
    let plan = plan::Plan::new(tree)?;
    writer::write(&plan, tree, spool, out, options, progress)?;
    Ok(Written { bytes: plan.bytes(), inodes: plan.placed().len() as u64 })
}
