//! Guest RAM: its regions, and the e820 view of them.
//!
//! All code reaches guest memory through `vm-memory`'s checked accessors, where address and length are verified
//! together; nobody keeps raw pointers into it.

use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice};

use crate::layout::{MMIO_GAP_END, MMIO_GAP_START};

/// The guest's RAM.
pub type GuestRam = GuestMemoryMmap<()>;

/// Smallest RAM in MiB: a kernel of some 30 MiB, its page structures and an initramfs must fit.
pub const MIN_MIB: u64 = 64;
/// Largest RAM in MiB (1 TiB).
pub const MAX_MIB: u64 = 1 << 20;

/// The host's pages, in bytes.
const PAGE: usize = 4096;

/// Why there is no guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("guest memory of {mib} MiB is not possible: ask for {MIN_MIB} to {MAX_MIB} MiB")]
    Size { mib: u64 },
    #[error("cannot map {mib} MiB of guest memory: {source}; is there a limit on address space (RLIMIT_AS)?")]
    Map { mib: u64, source: vm_memory::mmap::FromRangesError },
}

/// Where RAM of `mib` MiB lies: below the MMIO gap first, the rest from 4 GiB on.
pub fn ranges(mib: u64) -> Result<Vec<(GuestAddress, usize)>, MemoryError> {
    if !(MIN_MIB..=MAX_MIB).contains(&mib) {
        return Err(MemoryError::Size { mib });
    }
    let too_large = |_| MemoryError::Size { mib };
    let size = mib << 20;
    let low = size.min(MMIO_GAP_START);
    let mut ranges = vec![(GuestAddress(0), usize::try_from(low).map_err(too_large)?)];
    let high = size - low;
    if high > 0 {
        ranges.push((GuestAddress(MMIO_GAP_END), usize::try_from(high).map_err(too_large)?));
    }
    Ok(ranges)
}

/// Maps anonymous memory, not yet touched, for a guest of `mib` MiB.
pub fn allocate(mib: u64) -> Result<Arc<GuestRam>, MemoryError> {
    let ram = GuestRam::from_ranges(&ranges(mib)?).map_err(|source| MemoryError::Map { mib, source })?;
    Ok(Arc::new(ram))
}

/// Gives the whole pages of a piece of guest RAM back to the host; the guest reads zeros there from now on.
pub fn discard(slice: &VolatileSlice<'_>) -> std::io::Result<()> {
    let guard = slice.ptr_guard_mut();
    let begin = guard.as_ptr().addr();
    let end = begin.saturating_add(slice.len()) & !(PAGE - 1);
    let skipped = begin.next_multiple_of(PAGE).saturating_sub(begin);
    let Some(length) = end.checked_sub(begin.saturating_add(skipped)).filter(|length| *length > 0) else {
        return Ok(());
    };
    // SAFETY: the range lies within the slice, which is mapped guest RAM; that is memory which the guest changes at any
    // time, so nobody here relies on its content.
    let result = unsafe { libc::madvise(guard.as_ptr().add(skipped).cast(), length, libc::MADV_DONTNEED) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// End of the RAM below the MMIO gap.
#[must_use]
pub fn low_end(ram: &GuestRam) -> u64 {
    ram.find_region(GuestAddress(0)).map_or(0, |region| region.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_memory_is_one_region() {
        assert_eq!(ranges(256).unwrap(), [(GuestAddress(0), 256 << 20)]);
    }

    #[test]
    fn memory_beyond_three_gib_continues_above_the_gap() {
        let ranges = ranges(4096).unwrap();
        assert_eq!(ranges, [(GuestAddress(0), 3 << 30), (GuestAddress(4 << 30), 1 << 30)]);
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for mib in [0, MIN_MIB - 1, MAX_MIB + 1, u64::MAX] {
            assert!(matches!(ranges(mib), Err(MemoryError::Size { .. })));
        }
    }
}
