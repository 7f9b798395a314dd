//! A deterministic writer of EROFS images from a [`Tree`].
//!
//! Format: `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h` of Linux 6.12, whose
//! reader is the authority. Used here: 4096-byte blocks, superblock checksum, compact and extended
//! inodes, flat files with and without an inline tail, chunk-based files for holes, inline
//! extended attributes, a device table. Not used: compression, shared attributes.
//!
//! ```text
//! 0      1024          1152                                                     aligned to 4096
//! | zero | superblock  | device table | inodes, attributes, inline tails, maps  | directory blocks |
//! ```
//!
//! What is written has no blocks of files: these are in the devices of its table, one for each
//! layer with data, whose addresses follow on its own in the order of the table. The root file
//! system's disk is all of them, one after the other; the kernel takes a disk whose table it was
//! given no devices for as such (`erofs_scan_devices`, `erofs_map_dev`), and with `-o device=` it
//! takes them one by one.
//!
//! The same tree gives the same bytes: order, layout and addresses depend on names and contents
//! alone. [`plan`] decides where everything goes, [`writer`] streams it out in that order, so
//! memory is bounded by the number of nodes, never by their contents.

pub(crate) mod chunk;
mod devices;
mod dirent;
mod inode;
mod plan;
mod superblock;
mod writer;
pub mod xattr;

use std::fs::File;

use thiserror::Error;

use crate::tree::{Spool, Tree};

pub use devices::{Device, DeviceTableError, read_devices};

/// Size of a block; the image is a multiple of it.
pub const BLOCK: u64 = 4096;

/// [`BLOCK`] for lengths in memory.
const BLOCK_LEN: usize = 4096;

/// Longest tail of a regular file that is kept beside its inode. Longer ones would leave larger
/// gaps between inodes than the block they save.
const TAIL_MAX: u64 = 2048;

/// How many of a file's last bytes are kept beside its inode, which has so many bytes of attributes.
pub(crate) fn tail_len(size: u64, xattr_len: u64) -> u64 {
    let tail = size % BLOCK;
    // The larger of the two forms of inode, so that the tail fits with either.
    let fits = tail <= TAIL_MAX && inode::Shape::Extended.len().saturating_add(xattr_len).saturating_add(tail) <= BLOCK;
    if fits { tail } else { 0 }
}

/// What the tree does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// The volume's UUID. To keep images deterministic derive it from their content.
    pub uuid: [u8; 16],
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Length of what was written in bytes.
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
    /// Metadata or data beyond 2^32 blocks, or too many devices.
    #[error("the tree needs more blocks or devices than EROFS counts")]
    TooLarge,
    /// An extended attribute does not fit.
    #[error(transparent)]
    Xattr(#[from] xattr::XattrError),
    /// The tree names one directory twice, or itself.
    #[error("a directory has more than one name")]
    SharedDirectory,
}

/// Writes `tree`, whose contents are in `devices` and `spool`, to the empty file `out`. Does not
/// sync it.
///
/// `progress` is told bytes written and their total, a few times for each MiB at most.
///
/// # Errors
/// [`WriteError`]; `out` then holds nothing of use.
pub fn write(
    tree: &Tree,
    spool: &Spool,
    devices: &[Device],
    out: &File,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written, WriteError> {
    let plan = plan::Plan::new(tree, devices)?;
    writer::write(&plan, tree, spool, out, options, progress)?;
    Ok(Written { bytes: plan.bytes(), inodes: plan.placed().len() as u64 })
}
