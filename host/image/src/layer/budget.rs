//! What a layer's entries cost in memory, whatever is in them.

use super::problem::LayerProblem;
use super::tar::{Entry, EntryKind};
use crate::Limits;
use crate::erofs::chunk;
use crate::tree::Extent;

/// A node with its entry in a directory, its place in the image and its name's own block of memory.
const NODE: usize = 256;
/// The same of a directory, which has a table of its own.
const DIRECTORY: usize = 640;

/// What the entries of one image, or of one layer, may cost.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) limits: Limits,
    entries: u64,
    metadata_bytes: u64,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, entries: 0, metadata_bytes: 0 }
    }

    pub(super) fn charge(&mut self, entry: &Entry) -> Result<(), LayerProblem> {
        let node = if entry.kind == EntryKind::Directory { DIRECTORY } else { NODE };
        let attributes: usize = entry.xattrs.iter().map(|(name, value)| 64 + name.len() + value.len()).sum();
        let runs = entry.runs.as_ref().map_or(0, |runs| runs.len() * size_of::<Extent>());
        let bytes = node + entry.path.len() + entry.link.len() + attributes + runs;
        // A sparse file costs a map in the image, however little is stored of it.
        let map = if entry.runs.is_some() { chunk::map_len(entry.size) } else { 0 };
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(LayerProblem::Limit { what: "entries", limit: self.limits.entries });
        }
        self.spend((bytes as u64).saturating_add(map))
    }

    /// A directory that is made because something lies below it: one short entry may want hundreds.
    pub(super) fn charge_directory(&mut self, name: &[u8]) -> Result<(), LayerProblem> {
        self.spend((DIRECTORY + name.len()) as u64)
    }

    fn spend(&mut self, bytes: u64) -> Result<(), LayerProblem> {
        self.metadata_bytes = self.metadata_bytes.saturating_add(bytes);
        if self.metadata_bytes > self.limits.metadata_bytes {
            return Err(LayerProblem::Limit { what: "bytes of metadata", limit: self.limits.metadata_bytes });
        }
        Ok(())
    }
}
