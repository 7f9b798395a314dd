//! Where a file's bytes go when a layer's tar stream is taken apart: the same answer whenever its entries are read again
//! in their order.

use super::problem::EntryProblem;
use super::tar::{Entry, EntryKind};
use crate::erofs::{BLOCK, chunk, tail_len, xattr};
use crate::tree::Extent;

/// Largest regular file, holes included: ext4's limit with 4 KiB blocks.
const FILE_MAX: u64 = 16 << 40;

/// Where one entry's stored bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its first block of the layer's data.
    pub(super) first: u32,
    /// How many blocks it has there.
    pub(super) blocks: u64,
    /// Stored bytes that are in those blocks; the others, its tail, are not.
    pub(super) body: u64,
    /// The runs of a file with holes.
    pub(super) runs: Option<Vec<Extent>>,
}

/// Gives out the blocks of a layer's data.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    next: u64,
}

impl Blocks {
    /// The place of the next entry.
    pub(super) fn place(&mut self, entry: &Entry) -> Result<Place, EntryProblem> {
        if entry.kind != EntryKind::File {
            return Ok(Place { first: 0, blocks: 0, body: 0, runs: None });
        }
        if entry.size > FILE_MAX {
            return Err(EntryProblem::Large(entry.size));
        }
        let runs = entry.runs.as_deref().and_then(|runs| holes(entry.size, runs));
        let (blocks, body) = match &runs {
            Some(runs) => (chunk::data_blocks(entry.size, runs), entry.stored),
            None => {
                let xattrs = entry.xattrs.iter().filter(|(name, _)| super::merge::is_kept(name));
                let body = entry.stored - tail_len(entry.stored, xattr::body_len_of(xattrs));
                (body.div_ceil(BLOCK), body)
            }
        };
        let first = u32::try_from(self.next).map_err(|_| EntryProblem::Large(entry.size))?;
        self.next = self.next.checked_add(blocks).ok_or(EntryProblem::Large(entry.size))?;
        // The last number of all means "hole" to EROFS.
        if self.next >= u64::from(u32::MAX) {
            return Err(EntryProblem::Large(entry.size));
        }
        Ok(Place { first, blocks, body, runs })
    }

    /// Blocks given out.
    pub(super) fn count(&self) -> u64 {
        self.next
    }
}

/// A sparse entry's runs, those that touch made one; `None` when there is no hole after all.
fn holes(size: u64, runs: &[(u64, u64)]) -> Option<Vec<Extent>> {
    let mut extents: Vec<Extent> = Vec::with_capacity(runs.len());
    for (offset, len) in runs.iter().copied().filter(|(_, len)| *len > 0) {
        match extents.last_mut() {
            Some(last) if last.offset + last.len == offset => last.len += len,
            _ => extents.push(Extent { offset, len }),
        }
    }
    match extents.as_slice() {
        [] if size == 0 => None,
        [whole] if whole.offset == 0 && whole.len == size => None,
        _ => Some(extents),
    }
}
