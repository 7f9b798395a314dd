//! Loading the kernel and the initramfs.

use std::fs::File;

use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress};

use crate::layout::HIGH_RAM;
use crate::memory::{GuestRam, low_end};

const PAGE: u64 = 0x1000;

/// Why the kernel or the initramfs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("the kernel is not a usable ELF vmlinux: {0}; give an uncompressed x86-64 vmlinux, not a bzImage")]
    Kernel(linux_loader::loader::Error),
    #[error("the kernel ends at {end:#x} but guest memory at {ram:#x}: give the VM more memory")]
    KernelTooLarge { end: u64, ram: u64 },
    #[error("the kernel's entry {entry:#x} lies outside what was loaded, up to {end:#x}: the file is damaged")]
    Entry { entry: u64, end: u64 },
    #[error("the initramfs is empty: give the cpio archive that holds the agent")]
    EmptyInitramfs,
    #[error(
        "the initramfs of {size} bytes does not fit between the kernel's end {kernel_end:#x} and {ram:#x}: \
        give the VM more memory"
    )]
    InitramfsTooLarge { size: u64, kernel_end: u64, ram: u64 },
    #[error("cannot read the initramfs: {0}")]
    InitramfsSize(std::io::Error),
    #[error("cannot read the initramfs into guest memory: {0}")]
    InitramfsRead(vm_memory::GuestMemoryError),
}

/// Where the kernel was put.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// 64-bit entry point.
    pub entry: GuestAddress,
    /// First address after it, its BSS included.
    pub end: u64,
}

/// Where the initramfs was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initramfs {
    pub address: u32,
    pub size: u32,
}

/// Loads an uncompressed ELF kernel at its physical addresses.
pub fn load_kernel(ram: &GuestRam, file: &mut File) -> Result<Kernel, ImageError> {
    let loaded = Elf::load(ram, None, file, Some(GuestAddress(HIGH_RAM))).map_err(ImageError::Kernel)?;
    let (entry, end, ram_end) = (loaded.kernel_load, loaded.kernel_end, low_end(ram));
    if end > ram_end {
        return Err(ImageError::KernelTooLarge { end, ram: ram_end });
    }
    if entry.0 >= end {
        return Err(ImageError::Entry { entry: entry.0, end });
    }
    Ok(Kernel { entry, end })
}

/// Puts the initramfs at the end of the RAM below 4 GiB, page-aligned, clear of the kernel.
pub fn load_initramfs(ram: &GuestRam, file: &mut File, kernel_end: u64) -> Result<Initramfs, ImageError> {
    let size = file.metadata().map_err(ImageError::InitramfsSize)?.len();
    if size == 0 {
        return Err(ImageError::EmptyInitramfs);
    }
    let ram_end = low_end(ram);
    let too_large = ImageError::InitramfsTooLarge { size, kernel_end, ram: ram_end };
    let start = ram_end.checked_sub(size).map(|start| start & !(PAGE - 1)).filter(|start| *start >= kernel_end);
    let (Some(start), Ok(count)) = (start, usize::try_from(size)) else {
        return Err(too_large);
    };
    let (Ok(address), Ok(size)) = (u32::try_from(start), u32::try_from(size)) else {
        return Err(too_large);
    };
    std::io::Seek::rewind(file).map_err(ImageError::InitramfsSize)?;
    ram.read_exact_volatile_from(GuestAddress(start), file, count).map_err(ImageError::InitramfsRead)?;
    Ok(Initramfs { address, size })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::memory::MemoryMap;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn a_file_that_is_no_kernel_is_named_so() {
        let ram = MemoryMap::new(64, 0, 46).unwrap().allocate().unwrap();
        for content in [&b""[..], b"#!/bin/sh\n", &[0x7f, b'E', b'L', b'F'], &[0; 4096]] {
            let error = load_kernel(&ram, &mut file(content)).unwrap_err();
            assert!(error.to_string().contains("vmlinux"), "{error}");
        }
    }

    #[test]
    fn the_initramfs_lies_page_aligned_at_the_end_of_memory() {
        let ram = MemoryMap::new(64, 0, 46).unwrap().allocate().unwrap();
        let initramfs = load_initramfs(&ram, &mut file(&[7; 5000]), 0x200_0000).unwrap();
        assert_eq!(initramfs, Initramfs { address: (64 << 20) - 0x2000, size: 5000 });
        let last: u8 = ram.read_obj(GuestAddress(u64::from(initramfs.address) + 4999)).unwrap();
        assert_eq!(last, 7);
    }

    #[test]
    fn an_initramfs_never_overlaps_the_kernel() {
        let ram = MemoryMap::new(64, 0, 46).unwrap().allocate().unwrap();
        let error = load_initramfs(&ram, &mut file(&[7; 5000]), (64 << 20) - 0x1000).unwrap_err();
        assert!(matches!(error, ImageError::InitramfsTooLarge { .. }));
        assert!(matches!(load_initramfs(&ram, &mut file(&[]), 0), Err(ImageError::EmptyInitramfs)));
    }
}
