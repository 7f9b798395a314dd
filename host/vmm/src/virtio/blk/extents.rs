//! The files that a disk is made of, one after the other.

use std::fs::File;
use std::io;

use vm_memory::VolatileSlice;

use super::SECTOR;
use super::disk::DiskError;
use crate::virtio::io as guest_io;

/// One file or several, each from its first byte to its last.
#[derive(Debug)]
pub(super) struct Extents {
    /// Each file and where it ends on the disk, in bytes; never empty.
    files: Vec<(File, u64)>,
}

impl Extents {
    pub(super) fn new(files: Vec<File>) -> Result<Self, DiskError> {
        let mut end = 0_u64;
        let mut extents = Vec::with_capacity(files.len());
        for mut file in files {
            // Metadata of a block device has no size; its end has.
            let bytes = io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(DiskError::Size)?;
            if bytes == 0 {
                return Err(DiskError::Empty);
            }
            if !bytes.is_multiple_of(SECTOR) {
                return Err(DiskError::Ragged(bytes));
            }
            end = end.checked_add(bytes).ok_or(DiskError::Ragged(u64::MAX))?;
            extents.push((file, end));
        }
        if extents.is_empty() { Err(DiskError::Empty) } else { Ok(Self { files: extents }) }
    }

    /// Bytes of all files.
    pub(super) fn len(&self) -> u64 {
        self.files.last().map_or(0, |(_, end)| *end)
    }

    /// The only file, if there is no other: what a writable disk has.
    pub(super) fn only(&self) -> io::Result<&File> {
        match self.files.as_slice() {
            [(file, _)] => Ok(file),
            _ => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    /// Reads from `offset` into guest memory, and not beyond the end of the file that it lies in.
    pub(super) fn read_at(&self, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let index = self.files.partition_point(|(_, end)| *end <= offset);
        let (file, end) = self.files.get(index).ok_or(io::ErrorKind::UnexpectedEof)?;
        let start = index.checked_sub(1).and_then(|before| self.files.get(before)).map_or(0, |(_, end)| *end);
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        // The image is shorter than it was when plugged: the next file's bytes are not this one's.
        match guest_io::read_at(file, &first(slices, left)?, offset - start)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

/// The first `count` bytes of `slices`, or all.
fn first<'m>(slices: &[VolatileSlice<'m>], count: usize) -> io::Result<Vec<VolatileSlice<'m>>> {
    let mut left = count;
    let mut taken = Vec::with_capacity(slices.len());
    for slice in slices {
        if left == 0 {
            break;
        }
        let piece = slice.subslice(0, slice.len().min(left)).map_err(io::Error::other)?;
        left -= piece.len();
        taken.push(piece);
    }
    Ok(taken)
}
