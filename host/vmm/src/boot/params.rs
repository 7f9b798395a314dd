//! `struct boot_params`, the "zero page" (`Documentation/arch/x86/zero-page.rst`), and the command line it points to.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{Bytes, GuestAddress};

use super::{Initramfs, PlaceError};
use crate::layout::{CMDLINE, HIGH_RAM, LOW_RAM_END, ZERO_PAGE};
use crate::memory::GuestRam;

/// `boot_flag` and `header` of a kernel's own setup header (`HdrS`).
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
/// A boot loader without a registered number.
const LOADER_UNDEFINED: u8 = 0xff;
const KERNEL_ALIGNMENT: u32 = 0x100_0000;
const E820_RAM: u32 = 1;

fn ram_entry(start: u64, end: u64) -> boot_e820_entry {
    boot_e820_entry { addr: start, size: end.saturating_sub(start), r#type: E820_RAM }
}

/// RAM as the guest may use it. What is not listed is no RAM to Linux: the EBDA, the BIOS area with the MPTable, the
/// MMIO gap, and memory that is not plugged.
fn e820(boot_ram: &[(GuestAddress, usize)]) -> Vec<boot_e820_entry> {
    let mut entries = Vec::new();
    for (start, size) in boot_ram {
        let end = start.0.saturating_add(u64::try_from(*size).unwrap_or(0));
        if start.0 == 0 {
            entries.push(ram_entry(0, LOW_RAM_END));
            entries.push(ram_entry(HIGH_RAM, end));
        } else {
            entries.push(ram_entry(start.0, end));
        }
    }
    entries
}

/// Writes the zero page and the command line, which must fit [`crate::layout::CMDLINE_MAX`] with its NUL.
pub fn write_params(
    ram: &GuestRam,
    boot_ram: &[(GuestAddress, usize)],
    cmdline: &str,
    initramfs: Initramfs,
) -> Result<(), PlaceError> {
    let at = GuestAddress(CMDLINE);
    let mut text = cmdline.as_bytes().to_vec();
    text.push(0);
    ram.write_slice(&text, at).map_err(|source| PlaceError::new("kernel command line", at, source))?;

    let mut params = boot_params::default();
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.kernel_alignment = KERNEL_ALIGNMENT;
    params.hdr.cmd_line_ptr = u32::try_from(CMDLINE).unwrap_or_else(|_| unreachable!("CMDLINE is below 1 MiB"));
    params.hdr.cmdline_size = u32::try_from(cmdline.len()).unwrap_or(0);
    params.hdr.ramdisk_image = initramfs.address;
    params.hdr.ramdisk_size = initramfs.size;
    let entries = e820(boot_ram);
    let mut table = params.e820_table;
    for (slot, entry) in table.iter_mut().zip(&entries) {
        *slot = *entry;
    }
    params.e820_table = table;
    params.e820_entries = u8::try_from(entries.len()).unwrap_or(0);

    let at = GuestAddress(ZERO_PAGE);
    ram.write_obj(params, at).map_err(|source| PlaceError::new("zero page", at, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryMap;

    #[test]
    fn the_zero_page_leads_to_command_line_initramfs_and_memory() {
        let map = MemoryMap::new(128, 1024, 46).unwrap();
        let ram = map.allocate().unwrap();
        write_params(&ram, map.boot(), "panic=1", Initramfs { address: 0x700_0000, size: 42 }).unwrap();
        let params: boot_params = ram.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
        let header = params.hdr;
        assert_eq!(header.header.to_le_bytes(), *b"HdrS");
        assert_eq!({ header.cmdline_size }, 7);
        assert_eq!(({ header.ramdisk_image }, { header.ramdisk_size }), (0x700_0000, 42));
        let mut text = [0; 8];
        ram.read_slice(&mut text, GuestAddress(u64::from(header.cmd_line_ptr))).unwrap();
        assert_eq!(&text, b"panic=1\0");
        assert_eq!(params.e820_entries, 2);
        let table = params.e820_table;
        assert_eq!((table[0].addr, table[0].size), (0, LOW_RAM_END));
        assert_eq!((table[1].addr, table[1].size), (HIGH_RAM, (127 << 20)));
    }

    #[test]
    fn memory_above_the_gap_is_listed() {
        let entries = e820(MemoryMap::new(5 * 1024, 1024, 46).unwrap().boot());
        assert_eq!(entries.len(), 3);
        assert_eq!(({ entries[2].addr }, { entries[2].size }), (4 << 30, 2 << 30));
    }
}
