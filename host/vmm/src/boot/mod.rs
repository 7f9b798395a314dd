//! What lies in guest memory and in the boot CPU's registers when the guest starts: the 64-bit Linux boot protocol
//! (`Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol").
//!
//! Here: kernel and initramfs, command line, zero page, MPTable, page tables and GDT. Not here: KVM objects (`vm`),
//! CPUID and MSRs (`vcpu`).

mod cmdline;
mod images;
mod mptable;
mod params;
mod tables;

use vm_memory::GuestAddress;

pub use cmdline::{CmdlineError, command_line};
pub use images::{ImageError, Initramfs, Kernel, load_initramfs, load_kernel};
pub use mptable::write_mptable;
pub use params::write_params;
pub use tables::{SegmentDescriptor, write_tables};

/// A write of ours into guest RAM went wrong: the layout does not fit the memory.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the {what} at guest address {address:#x}: {source}")]
pub struct PlaceError {
    pub what: &'static str,
    pub address: u64,
    pub source: vm_memory::GuestMemoryError,
}

impl PlaceError {
    fn new(what: &'static str, address: GuestAddress, source: vm_memory::GuestMemoryError) -> Self {
        Self { what, address: address.0, source }
    }
}
