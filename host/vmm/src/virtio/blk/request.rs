//! Reading one request out of a descriptor chain (section 5.2.6).

use super::{RANGE_SECTORS_MAX, RANGES_MAX, SECTOR};
use crate::virtio::buffer::{Buffer, Buffers, ChainError};

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

const HEADER_LEN: usize = 16;
const RANGE_LEN: usize = 16;
const RANGE_FLAG_UNMAP: u32 = 1;

/// A request that the device can at least answer: its status byte is known.
#[derive(Debug)]
pub(super) struct Request<'m> {
    pub(super) operation: Result<Operation<'m>, Refusal>,
    /// The last device-writable byte.
    pub(super) status: Buffer<'m>,
}

/// What the driver asks for. Positions and lengths are in bytes and lie within the disk.
#[derive(Debug)]
pub(super) enum Operation<'m> {
    Read { offset: u64, into: Buffer<'m> },
    Write { offset: u64, from: Buffer<'m> },
    Flush,
    GetId { into: Buffer<'m> },
    Discard(Vec<Range>),
    WriteZeroes(Vec<Range>),
}

/// A part of the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// The range may be deallocated.
    pub(super) unmap: bool,
}

/// Why a request is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// VIRTIO_BLK_S_UNSUPP.
    Unsupported,
    /// VIRTIO_BLK_S_IOERR: a range outside the disk, a length that is no multiple of a sector, or a write to a
    /// read-only disk.
    Invalid,
}

impl From<ChainError> for Refusal {
    fn from(_: ChainError) -> Self {
        Self::Invalid
    }
}

/// Checks that a range of sectors lies on the disk; returns its position in bytes.
fn locate(sector: u64, length: u64, capacity: u64) -> Result<u64, Refusal> {
    if !length.is_multiple_of(SECTOR) {
        return Err(Refusal::Invalid);
    }
    let offset = sector.checked_mul(SECTOR).ok_or(Refusal::Invalid)?;
    let end = offset.checked_add(length).ok_or(Refusal::Invalid)?;
    if end > capacity { Err(Refusal::Invalid) } else { Ok(offset) }
}

impl<'m> Request<'m> {
    /// Reads a request for a disk of `capacity` bytes. An error means that there is no status byte to answer in.
    pub(super) fn parse(buffers: Buffers<'m>, capacity: u64, read_only: bool) -> Result<Self, ChainError> {
        let Buffers { readable, mut writable } = buffers;
        let status = writable.split_back(1)?;
        let operation = Operation::parse(readable, writable, capacity, read_only);
        Ok(Self { operation, status })
    }
}

impl<'m> Operation<'m> {
    fn parse(mut readable: Buffer<'m>, writable: Buffer<'m>, capacity: u64, read_only: bool) -> Result<Self, Refusal> {
        let [t0, t1, t2, t3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = readable.read::<HEADER_LEN>()?;
        let kind = u32::from_le_bytes([t0, t1, t2, t3]);
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        match kind {
            TYPE_IN => {
                let length = u64::try_from(writable.len()).map_err(|_| Refusal::Invalid)?;
                Ok(Self::Read { offset: locate(sector, length, capacity)?, into: writable })
            }
            TYPE_FLUSH => Ok(Self::Flush),
            TYPE_GET_ID => Ok(Self::GetId { into: writable }),
            TYPE_OUT | TYPE_DISCARD | TYPE_WRITE_ZEROES if read_only => Err(Refusal::Invalid),
            TYPE_OUT => {
                let length = u64::try_from(readable.len()).map_err(|_| Refusal::Invalid)?;
                Ok(Self::Write { offset: locate(sector, length, capacity)?, from: readable })
            }
            TYPE_DISCARD => Ok(Self::Discard(ranges(readable, capacity, 0)?)),
            TYPE_WRITE_ZEROES => Ok(Self::WriteZeroes(ranges(readable, capacity, RANGE_FLAG_UNMAP)?)),
            _ => Err(Refusal::Unsupported),
        }
    }
}

/// Reads the ranges of a discard or write-zeroes request (section 5.2.6.2).
fn ranges(mut readable: Buffer<'_>, capacity: u64, known_flags: u32) -> Result<Vec<Range>, Refusal> {
    let count = readable.len() / RANGE_LEN;
    let most = usize::try_from(RANGES_MAX).unwrap_or(0);
    if count == 0 || count > most || !readable.len().is_multiple_of(RANGE_LEN) {
        return Err(Refusal::Invalid);
    }
    let mut ranges = Vec::with_capacity(count);
    while !readable.is_empty() {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = readable.read::<RANGE_LEN>()?;
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        if flags & !known_flags != 0 {
            return Err(Refusal::Unsupported);
        }
        if sectors > RANGE_SECTORS_MAX {
            return Err(Refusal::Invalid);
        }
        let length = u64::from(sectors) * SECTOR;
        let offset = locate(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), length, capacity)?;
        ranges.push(Range { offset, length, unmap: flags & RANGE_FLAG_UNMAP != 0 });
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_located_range_always_lies_on_the_disk(sector: u64, length: u64, capacity in 0_u64..1 << 50) {
            if let Ok(offset) = locate(sector, length, capacity) {
                prop_assert!(u128::from(offset) + u128::from(length) <= u128::from(capacity));
                prop_assert_eq!(offset % SECTOR, 0);
            }
        }
    }

    #[test]
    fn the_last_sector_is_inside_and_the_next_outside() {
        assert_eq!(locate(7, SECTOR, 8 * SECTOR), Ok(7 * SECTOR));
        assert_eq!(locate(8, SECTOR, 8 * SECTOR), Err(Refusal::Invalid));
        assert_eq!(locate(8, 0, 8 * SECTOR), Ok(8 * SECTOR));
        assert_eq!(locate(u64::MAX, SECTOR, 8 * SECTOR), Err(Refusal::Invalid));
        assert_eq!(locate(0, 513, 8 * SECTOR), Err(Refusal::Invalid));
    }
}
