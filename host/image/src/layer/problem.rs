//! Why a layer is refused.

use thiserror::Error;

use super::path::PathProblem;
use super::tar::TarProblem;
use crate::erofs::xattr;
use crate::tree::TreeError;

/// Longest symbolic link target, in bytes (`PATH_MAX` with its NUL).
pub(super) const LINK_MAX: usize = 4095;

/// Why a layer's content is refused.
#[derive(Debug, Error)]
pub enum LayerProblem {
    /// The tar stream itself is broken.
    #[error(transparent)]
    Tar(#[from] TarProblem),
    /// One entry is not acceptable.
    #[error("its entry \"{path}\" is refused: {problem}")]
    Entry {
        /// The path as the layer has it, unprintable bytes escaped.
        path: String,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// The image asks for more than [`Limits`] allow.
    #[error("the image has more than {limit} {what}, this host's limit")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The spool could not be written.
    #[error("its contents cannot be written to the image store: {0}; see that the store's disk has room")]
    Spool(std::io::Error),
    /// What was kept of it is not there as it was.
    #[error("what the image store keeps of it cannot be read: {0}")]
    Stored(std::io::Error),
}

impl LayerProblem {
    pub(super) fn of_entry(path: &[u8], problem: EntryProblem) -> Self {
        Self::Entry { path: path.escape_ascii().to_string(), problem }
    }
}

/// Why an entry is refused.
#[derive(Debug, Error)]
pub enum EntryProblem {
    /// Its path is not one of the image.
    #[error(transparent)]
    Path(#[from] PathProblem),
    /// Its header or data is malformed.
    #[error(transparent)]
    Tar(#[from] TarProblem),
    /// The tree cannot hold it.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Something of the same layer that is no directory is in its way.
    #[error("it lies below something of the same layer that is not a directory")]
    BelowNonDirectory,
    /// The root of the image would not be a directory.
    #[error("it would make the root of the image something else than a directory")]
    Root,
    /// A hard link without target.
    #[error("it is a hard link to \"{0}\", which the image does not have")]
    LinkTarget(String),
    /// A hard link to a directory.
    #[error("it is a hard link to \"{0}\", which is a directory")]
    LinkToDirectory(String),
    /// A symbolic link's target is empty, too long, or has a NUL.
    #[error("its link target is empty, longer than {LINK_MAX} bytes, or has a NUL in it")]
    Symlink,
    /// An extended attribute cannot be stored.
    #[error(transparent)]
    Xattr(#[from] xattr::XattrError),
    /// Larger than any file system would hold.
    #[error("it is a file of {0} bytes")]
    Large(u64),
    /// A name that begins as a whiteout but names nothing.
    #[error("it is a whiteout that names nothing")]
    Whiteout,
}
