//! The MPTable: Intel MultiProcessor Specification 1.4, chapter 4.
//!
//! Without ACPI this is how the guest learns of further CPUs and of interrupt lines above 15
//! (Linux: `arch/x86/kernel/mpparse.c`).

use vm_memory::{Bytes, GuestAddress};

use super::PlaceError;
use crate::layout::{IOAPIC, LAPIC, LAST_IRQ, MPTABLE};
use crate::memory::GuestRam;

const SPEC_REVISION_1_4: u8 = 4;
/// Version that a local APIC and IOAPIC of this era report.
const APIC_VERSION: u8 = 0x14;

const ENTRY_PROCESSOR: u8 = 0;
const ENTRY_BUS: u8 = 1;
const ENTRY_IOAPIC: u8 = 2;
const ENTRY_IO_INTERRUPT: u8 = 3;
const ENTRY_LOCAL_INTERRUPT: u8 = 4;

const CPU_ENABLED: u8 = 1;
const CPU_BOOT: u8 = 2;
const INTERRUPT_VECTORED: u8 = 0;
const INTERRUPT_NMI: u8 = 1;
const INTERRUPT_EXTINT: u8 = 3;
const ISA_BUS: u8 = 0;
const EVERY_LAPIC: u8 = 0xff;

/// Length of the floating pointer structure that leads to the table.
const POINTER_LEN: usize = 16;
const HEADER_LEN: usize = 44;

/// Makes the floating pointer and, right behind it, the configuration table.
fn mptable(vcpus: u8) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut count: u16 = 0;
    let mut add = |entry: &[u8]| {
        entries.extend_from_slice(entry);
        count += 1;
    };
    for id in 0..vcpus {
        let flags = if id == 0 { CPU_ENABLED | CPU_BOOT } else { CPU_ENABLED };
        let mut entry = [0; 20];
        entry[..4].copy_from_slice(&[ENTRY_PROCESSOR, id, APIC_VERSION, flags]);
        // Family 6 and a minimum of features (FPU, APIC): Linux asks CPUID instead.
        entry[4..8].copy_from_slice(&0x600_u32.to_le_bytes());
        entry[8..12].copy_from_slice(&0x201_u32.to_le_bytes());
        add(&entry);
    }
    add(&[ENTRY_BUS, ISA_BUS, b'I', b'S', b'A', b' ', b' ', b' ']);
    // APIC ids of CPUs are 0 to vcpus - 1.
    let ioapic = vcpus;
    let [a, b, c, d] = IOAPIC.to_le_bytes();
    add(&[ENTRY_IOAPIC, ioapic, APIC_VERSION, 1, a, b, c, d]);
    // Every line is wired one to one, also those an ISA bus never had: edge-triggered, active high ("conforms").
    for line in 0..=LAST_IRQ {
        let [line, ..] = line.to_le_bytes();
        add(&[ENTRY_IO_INTERRUPT, INTERRUPT_VECTORED, 0, 0, ISA_BUS, line, ioapic, line]);
    }
    add(&[ENTRY_LOCAL_INTERRUPT, INTERRUPT_EXTINT, 0, 0, ISA_BUS, 0, 0, 0]);
    add(&[ENTRY_LOCAL_INTERRUPT, INTERRUPT_NMI, 0, 0, ISA_BUS, 0, EVERY_LAPIC, 1]);

    let mut table = Vec::with_capacity(HEADER_LEN + entries.len());
    table.extend_from_slice(b"PCMP");
    let length = u16::try_from(HEADER_LEN + entries.len()).unwrap_or(u16::MAX);
    table.extend_from_slice(&length.to_le_bytes());
    table.extend_from_slice(&[SPEC_REVISION_1_4, 0]);
    table.extend_from_slice(b"HUSK    ");
    table.extend_from_slice(b"000000000000");
    table.extend_from_slice(&[0; 6]);
    table.extend_from_slice(&count.to_le_bytes());
    table.extend_from_slice(&LAPIC.to_le_bytes());
    table.extend_from_slice(&[0; 4]);
    table.extend_from_slice(&entries);
    let sum = checksum(&table);
    if let Some(byte) = table.get_mut(7) {
        *byte = sum;
    }

    let [a, b, c, d, ..] = (MPTABLE + 16).to_le_bytes();
    let mut whole = vec![b'_', b'M', b'P', b'_', a, b, c, d, 1, SPEC_REVISION_1_4, 0, 0, 0, 0, 0, 0];
    let sum = checksum(&whole);
    if let Some(byte) = whole.get_mut(10) {
        *byte = sum;
    }
    debug_assert_eq!(whole.len(), POINTER_LEN);
    whole.extend_from_slice(&table);
    whole
}

/// The byte that makes the sum of all bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

/// Writes the table for `vcpus` CPUs.
pub fn write_mptable(ram: &GuestRam, vcpus: u8) -> Result<(), PlaceError> {
    let address = GuestAddress(MPTABLE);
    ram.write_slice(&mptable(vcpus), address).map_err(|source| PlaceError::new("MPTable", address, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MPTABLE_MAX;

    #[test]
    fn both_structures_sum_to_zero() {
        for vcpus in [1, 2, 64] {
            let whole = mptable(vcpus);
            let (pointer, table) = whole.split_at(POINTER_LEN);
            assert_eq!(checksum(pointer), 0);
            assert_eq!(checksum(table), 0);
            assert!(whole.len() < MPTABLE_MAX);
        }
    }

    #[test]
    fn length_and_count_agree_with_the_entries() {
        let whole = mptable(3);
        let table = &whole[POINTER_LEN..];
        assert_eq!(&table[..4], b"PCMP");
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
        let mut rest = &table[HEADER_LEN..];
        let mut kinds = [0_u16; 5];
        while let Some(kind) = rest.first() {
            kinds[usize::from(*kind)] += 1;
            rest = &rest[if *kind == ENTRY_PROCESSOR { 20 } else { 8 }..];
        }
        assert_eq!(kinds, [3, 1, 1, 24, 2]);
        assert_eq!(u16::from_le_bytes([table[34], table[35]]), kinds.iter().sum::<u16>());
    }

    #[test]
    fn only_the_first_cpu_is_the_boot_cpu() {
        let whole = mptable(2);
        let table = &whole[POINTER_LEN..];
        assert_eq!(table[HEADER_LEN + 3], CPU_ENABLED | CPU_BOOT);
        assert_eq!(table[HEADER_LEN + 23], CPU_ENABLED);
    }
}
