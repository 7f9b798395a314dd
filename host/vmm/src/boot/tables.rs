//! GDT and page tables that the boot CPU starts with.

use kvm_bindings::kvm_segment;
use vm_memory::{Bytes, GuestAddress};

use super::PlaceError;
use crate::layout::{GDT, IDT, PD, PDPT, PML4};
use crate::memory::GuestRam;

const PRESENT_WRITABLE: u64 = 0b11;
const PAGE_SIZE_2M: u64 = 1 << 7;

/// A flat segment, both as KVM's register value and as the GDT entry it would be loaded from.
#[derive(Clone, Copy, Debug)]
pub struct SegmentDescriptor {
    index: u8,
    /// Bits 40-47: type, S, DPL, P.
    access: u8,
    /// Bits 52-55: AVL, L, D/B, G.
    flags: u8,
}

impl SegmentDescriptor {
    /// 64-bit code: `__BOOT_CS` of Linux.
    pub const CODE: Self = Self { index: 2, access: 0x9b, flags: 0xa };
    /// Data: `__BOOT_DS` of Linux.
    pub const DATA: Self = Self { index: 3, access: 0x93, flags: 0xc };
    /// Task state; the CPU wants one, though nothing switches to it.
    pub const TASK: Self = Self { index: 4, access: 0x8b, flags: 0x8 };

    /// Number of entries in the boot GDT, the null descriptor and an unused one included.
    pub const COUNT: u16 = 5;

    fn gdt_entry(self) -> u64 {
        // Limit 0xfffff with 4 KiB granularity, base 0.
        0x000f_0000_0000_ffff | (u64::from(self.access) << 40) | (u64::from(self.flags) << 52)
    }

    /// The register value with the hidden part of the segment loaded.
    #[must_use]
    pub fn register(self) -> kvm_segment {
        kvm_segment {
            base: 0,
            limit: 0xffff_ffff,
            selector: u16::from(self.index) * 8,
            type_: self.access & 0xf,
            s: (self.access >> 4) & 1,
            dpl: (self.access >> 5) & 3,
            present: self.access >> 7,
            avl: self.flags & 1,
            l: (self.flags >> 1) & 1,
            db: (self.flags >> 2) & 1,
            g: (self.flags >> 3) & 1,
            unusable: 0,
            padding: 0,
        }
    }
}

/// Writes GDT, an empty IDT and page tables that map the first GiB to itself with 2 MiB pages.
pub fn write_tables(ram: &GuestRam) -> Result<(), PlaceError> {
    let put = |what, address: u64, value: u64| {
        let address = GuestAddress(address);
        ram.write_obj(value, address).map_err(|source| PlaceError::new(what, address, source))
    };
    for segment in [SegmentDescriptor::CODE, SegmentDescriptor::DATA, SegmentDescriptor::TASK] {
        put("GDT", GDT + 8 * u64::from(segment.index), segment.gdt_entry())?;
    }
    put("IDT", IDT, 0)?;
    put("page tables", PML4, PDPT | PRESENT_WRITABLE)?;
    put("page tables", PDPT, PD | PRESENT_WRITABLE)?;
    for entry in 0..512 {
        put("page tables", PD + 8 * entry, (entry << 21) | PRESENT_WRITABLE | PAGE_SIZE_2M)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryMap;

    #[test]
    fn the_code_segment_is_the_one_linux_expects() {
        assert_eq!(SegmentDescriptor::CODE.gdt_entry(), 0x00af_9b00_0000_ffff);
        assert_eq!(SegmentDescriptor::DATA.gdt_entry(), 0x00cf_9300_0000_ffff);
        let code = SegmentDescriptor::CODE.register();
        assert_eq!(
            (code.selector, code.l, code.db, code.g, code.type_, code.s, code.present),
            (0x10, 1, 0, 1, 11, 1, 1)
        );
        assert_eq!(SegmentDescriptor::DATA.register().selector, 0x18);
    }

    #[test]
    fn the_first_gib_maps_to_itself() {
        let ram = MemoryMap::new(64, 0, 46).unwrap().allocate().unwrap();
        write_tables(&ram).unwrap();
        let last: u64 = ram.read_obj(GuestAddress(PD + 8 * 511)).unwrap();
        assert_eq!(last, (1 << 30) - (2 << 20) + 0x83);
        let top: u64 = ram.read_obj(GuestAddress(PML4)).unwrap();
        assert_eq!(top, PDPT + 3);
    }
}
