//! Registers that a vCPU starts with.

use kvm_bindings::{Msrs, kvm_fpu, kvm_lapic_state, kvm_msr_entry, kvm_regs};
use kvm_ioctls::VcpuFd;
use vm_memory::GuestAddress;

use crate::boot::SegmentDescriptor;
use crate::layout::{BOOT_STACK, GDT, IDT, PML4, ZERO_PAGE};
use crate::vm::{VmError, refused};

// MSR numbers: Intel SDM volume 4.
const MSR_SYSENTER_CS: u32 = 0x174;
const MSR_SYSENTER_ESP: u32 = 0x175;
const MSR_SYSENTER_EIP: u32 = 0x176;
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_CSTAR: u32 = 0xc000_0083;
const MSR_SYSCALL_MASK: u32 = 0xc000_0084;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;
const MSR_TSC: u32 = 0x10;

const MISC_ENABLE_FAST_STRING: u64 = 1;
/// MTRRs enabled, everything write-back: without it the guest would think its memory uncached.
const MTRR_ENABLED_WRITE_BACK: u64 = (1 << 11) | 6;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set.
const RFLAGS: u64 = 2;

// Offsets in the local APIC's register page, and delivery modes (Intel SDM volume 3, 11.5.1).
const APIC_LVT0: usize = 0x350;
const APIC_LVT1: usize = 0x360;
const APIC_MODE_MASK: u32 = 0x700;
const APIC_MODE_NMI: u32 = 0x400;
const APIC_MODE_EXTINT: u32 = 0x700;

pub(super) fn set_msrs(fd: &VcpuFd) -> Result<(), VmError> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let entries = [
        entry(MSR_SYSENTER_CS, 0),
        entry(MSR_SYSENTER_ESP, 0),
        entry(MSR_SYSENTER_EIP, 0),
        entry(MSR_STAR, 0),
        entry(MSR_CSTAR, 0),
        entry(MSR_KERNEL_GS_BASE, 0),
        entry(MSR_SYSCALL_MASK, 0),
        entry(MSR_LSTAR, 0),
        entry(MSR_TSC, 0),
        entry(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        entry(MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK),
    ];
    let refuse = |message| VmError::Refused { what: "set a vCPU's MSRs", source: std::io::Error::other(message) };
    let msrs = Msrs::from_entries(&entries).map_err(|error| refuse(format!("{error:?}")))?;
    let count = fd.set_msrs(&msrs).map_err(refused("set a vCPU's MSRs"))?;
    match entries.get(count) {
        None => Ok(()),
        // KVM stops at the first one that it does not take.
        Some(first) => Err(refuse(format!("MSR {:#x} is not taken", first.index))),
    }
}

pub(super) fn set_fpu(fd: &VcpuFd) -> Result<(), VmError> {
    // As after FNINIT, and all SSE exceptions masked.
    let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
    fd.set_fpu(&fpu).map_err(refused("set a vCPU's FPU"))
}

/// 64-bit mode at the kernel's entry: RSI leads to the zero page (boot.rst, "64-bit Boot Protocol").
pub fn set_entry(fd: &VcpuFd, entry: GuestAddress) -> Result<(), VmError> {
    let regs = kvm_regs {
        rflags: RFLAGS,
        rip: entry.0,
        rsp: BOOT_STACK,
        rbp: BOOT_STACK,
        rsi: ZERO_PAGE,
        ..Default::default()
    };
    fd.set_regs(&regs).map_err(refused("set a vCPU's registers"))?;

    let mut sregs = fd.get_sregs().map_err(refused("tell a vCPU's registers"))?;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = SegmentDescriptor::COUNT * 8 - 1;
    sregs.idt.base = IDT;
    sregs.idt.limit = 7;
    sregs.cs = SegmentDescriptor::CODE.register();
    let data = SegmentDescriptor::DATA.register();
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = SegmentDescriptor::TASK.register();
    sregs.cr3 = PML4;
    sregs.cr4 |= CR4_PAE;
    sregs.cr0 |= CR0_PE | CR0_ET | CR0_PG;
    sregs.efer |= EFER_LME | EFER_LMA;
    fd.set_sregs(&sregs).map_err(refused("set a vCPU's system registers"))
}

/// LINT0 takes the PIC's interrupts, LINT1 is NMI, as a BIOS leaves them and the MPTable says.
pub(super) fn set_lapic(fd: &VcpuFd) -> Result<(), VmError> {
    let mut lapic = fd.get_lapic().map_err(refused("tell a vCPU's local APIC"))?;
    set_delivery_mode(&mut lapic, APIC_LVT0, APIC_MODE_EXTINT);
    set_delivery_mode(&mut lapic, APIC_LVT1, APIC_MODE_NMI);
    fd.set_lapic(&lapic).map_err(refused("set a vCPU's local APIC"))
}

fn set_delivery_mode(lapic: &mut kvm_lapic_state, register: usize, mode: u32) {
    let Some(bytes) = lapic.regs.get_mut(register..).and_then(|rest| rest.first_chunk_mut::<4>()) else { return };
    // The page is an array of C's char, which is signed here.
    let value = u32::from_le_bytes(bytes.map(i8::cast_unsigned));
    *bytes = ((value & !APIC_MODE_MASK) | mode).to_le_bytes().map(u8::cast_signed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_delivery_mode_changes() {
        let mut lapic = kvm_lapic_state::default();
        lapic.regs[APIC_LVT0..APIC_LVT0 + 4].copy_from_slice(&[-1, -1, 1, 0]);
        set_delivery_mode(&mut lapic, APIC_LVT0, APIC_MODE_NMI);
        assert_eq!(lapic.regs[APIC_LVT0..APIC_LVT0 + 4], [-1, -4, 1, 0]);
    }
}
