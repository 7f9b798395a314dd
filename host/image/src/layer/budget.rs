//! What a layer's entries cost in memory, whatever is in them.

use super::problem::LayerProblem;
use super::tar::Entry;
use crate::Limits;
use crate::erofs::chunk;
use crate::tree::Extent;

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
        const PER_ENTRY: usize = 200;
        let attributes: usize = entry.xattrs.iter().map(|(name, value)| 64 + name.len() + value.len()).sum();
        let runs = entry.runs.as_ref().map_or(0, |runs| runs.len() * size_of::<Extent>());
        let bytes = PER_ENTRY + entry.path.len() + entry.link.len() + attributes + runs;
        // A sparse file costs a map in the image, however little is stored of it.
        let map = if entry.runs.is_some() { chunk::map_len(entry.size) } else { 0 };
        self.entries += 1;
        self.metadata_bytes = self.metadata_bytes.saturating_add(bytes as u64).saturating_add(map);
        if self.entries > self.limits.entries {
            return Err(LayerProblem::Limit { what: "entries", limit: self.limits.entries });
        }
        if self.metadata_bytes > self.limits.metadata_bytes {
            return Err(LayerProblem::Limit { what: "bytes of metadata", limit: self.limits.metadata_bytes });
        }
        Ok(())
    }
}
