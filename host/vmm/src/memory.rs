//! Guest RAM: where it lies, and the memory behind it.
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

/// What the hot-pluggable region's address and size are multiples of: Linux adds memory in blocks of this size at least
/// (`MIN_MEMORY_BLOCK_SIZE` in `arch/x86/mm/init_64.c`). Larger blocks it takes only where they fit the end of RAM, behind
/// which the region begins.
pub const HOTPLUG_UNIT_MIB: u64 = 128;

/// Why there is no guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("guest memory of {mib} MiB is not possible: ask for {MIN_MIB} to {MAX_MIB} MiB")]
    Size { mib: u64 },
    #[error(
        "hot-pluggable memory of {mib} MiB is not possible: ask for a multiple of {HOTPLUG_UNIT_MIB} MiB up to {MAX_MIB} MiB"
    )]
    Hotplug { mib: u64 },
    #[error(
        "guest memory would end at {end:#x}, but this machine's guests have addresses of {bits} bits: ask for less"
    )]
    Address { end: u64, bits: u32 },
    #[error("cannot map {mib} MiB of guest memory: {source}; is there a limit on address space (RLIMIT_AS)?")]
    Map { mib: usize, source: vm_memory::mmap::FromRangesError },
}

/// The region in which the guest can plug memory (`virtio::mem`), in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hotplug {
    pub address: u64,
    pub size: u64,
}

/// Where guest memory lies: below the MMIO gap first, the rest from 4 GiB on, and then what can be plugged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    boot: Vec<(GuestAddress, usize)>,
    hotplug: Option<Hotplug>,
}

impl MemoryMap {
    /// Lays out RAM of `boot_mib` MiB and a region for `hotplug_mib` more, or as much of that as physical addresses of
    /// `address_bits` bits leave room for.
    pub fn new(boot_mib: u64, hotplug_mib: u64, address_bits: u32) -> Result<Self, MemoryError> {
        if !(MIN_MIB..=MAX_MIB).contains(&boot_mib) {
            return Err(MemoryError::Size { mib: boot_mib });
        }
        if hotplug_mib > MAX_MIB || !hotplug_mib.is_multiple_of(HOTPLUG_UNIT_MIB) {
            return Err(MemoryError::Hotplug { mib: hotplug_mib });
        }
        let too_large = |_| MemoryError::Size { mib: boot_mib };
        let size = boot_mib << 20;
        let low = size.min(MMIO_GAP_START);
        let high = size - low;
        let mut boot = vec![(GuestAddress(0), usize::try_from(low).map_err(too_large)?)];
        if high > 0 {
            boot.push((GuestAddress(MMIO_GAP_END), usize::try_from(high).map_err(too_large)?));
        }
        let limit = 1_u64.checked_shl(address_bits).unwrap_or(u64::MAX);
        let end = if high > 0 { MMIO_GAP_END + high } else { low };
        if end > limit {
            return Err(MemoryError::Address { end, bits: address_bits });
        }
        let unit = HOTPLUG_UNIT_MIB << 20;
        let address = (MMIO_GAP_END + high).next_multiple_of(unit);
        let room = limit.saturating_sub(address);
        let size = (hotplug_mib << 20).min(room - room % unit);
        let hotplug = (size > 0).then_some(Hotplug { address, size });
        Ok(Self { boot, hotplug })
    }

    /// RAM that the guest has from the beginning.
    #[must_use]
    pub fn boot(&self) -> &[(GuestAddress, usize)] {
        &self.boot
    }

    #[must_use]
    pub fn hotplug(&self) -> Option<Hotplug> {
        self.hotplug
    }

    /// Maps anonymous memory for all of it, not yet touched and not reserved (`MAP_NORESERVE`): memory that nobody has
    /// plugged costs address space only.
    pub fn allocate(&self) -> Result<Arc<GuestRam>, MemoryError> {
        let mut ranges = self.boot.clone();
        if let Some(region) = self.hotplug {
            let too_large = |_| MemoryError::Hotplug { mib: region.size >> 20 };
            ranges.push((GuestAddress(region.address), usize::try_from(region.size).map_err(too_large)?));
        }
        let ram = GuestRam::from_ranges(&ranges).map_err(|source| {
            let bytes = ranges.iter().fold(0_usize, |sum, (_, size)| sum.saturating_add(*size));
            MemoryError::Map { mib: bytes >> 20, source }
        })?;
        Ok(Arc::new(ram))
    }
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

    const BITS: u32 = 46;

    fn boot(mib: u64) -> Vec<(GuestAddress, usize)> {
        MemoryMap::new(mib, 0, BITS).unwrap().boot().to_vec()
    }

    #[test]
    fn small_memory_is_one_region() {
        assert_eq!(boot(256), [(GuestAddress(0), 256 << 20)]);
    }

    #[test]
    fn memory_beyond_three_gib_continues_above_the_gap() {
        assert_eq!(boot(4096), [(GuestAddress(0), 3 << 30), (GuestAddress(4 << 30), 1 << 30)]);
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for mib in [0, MIN_MIB - 1, MAX_MIB + 1, u64::MAX] {
            assert!(matches!(MemoryMap::new(mib, 0, BITS), Err(MemoryError::Size { .. })));
        }
        for mib in [1, HOTPLUG_UNIT_MIB + 1, MAX_MIB + HOTPLUG_UNIT_MIB, u64::MAX] {
            assert!(matches!(MemoryMap::new(256, mib, BITS), Err(MemoryError::Hotplug { .. })), "{mib}");
        }
    }

    #[test]
    fn pluggable_memory_follows_ram_at_a_blocks_boundary() {
        let region = |mib| MemoryMap::new(mib, 1024, BITS).unwrap().hotplug().unwrap();
        assert_eq!(region(256), Hotplug { address: 4 << 30, size: 1 << 30 });
        assert_eq!(region(3 * 1024 + 100), Hotplug { address: (4 << 30) + (128 << 20), size: 1 << 30 });
        let ram = MemoryMap::new(256, 1024, BITS).unwrap().allocate().unwrap();
        assert!(ram.check_range(GuestAddress(4 << 30), 1 << 30));
        assert!(MemoryMap::new(256, 0, BITS).unwrap().hotplug().is_none());
    }

    #[test]
    fn no_address_is_wider_than_the_machines() {
        let region =
            |boot, more, bits| MemoryMap::new(boot, more, bits).unwrap().hotplug().map(|region| region.size >> 30);
        assert_eq!((region(256, 20 << 10, 35), region(256, 30 << 10, 35)), (Some(20), Some(28)));
        assert_eq!((region(256, 1 << 10, 32), region(1 << 20, 1 << 20, 64)), (None, Some(1 << 10)));
        assert!(matches!(MemoryMap::new(5 * 1024, 0, 32), Err(MemoryError::Address { bits: 32, .. })));
    }
}
