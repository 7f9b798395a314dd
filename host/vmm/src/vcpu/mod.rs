//! Virtual CPUs: their initial state (`cpuid`, `registers`) and the threads that run them (`thread`).

mod cpuid;
mod registers;
mod thread;

use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VcpuFd};
use vm_memory::GuestAddress;

use crate::vm::{Vm, VmError, refused};

pub use cpuid::address_bits;
pub use registers::set_entry;
pub use thread::{Bus, Command, MachineEvent, Mailbox, VcpuHandle, install_kick_handler};

/// CPUID as the host's KVM supports it, to be fitted to each vCPU.
pub fn supported_cpuid(kvm: &Kvm) -> Result<CpuId, VmError> {
    kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).map_err(refused("tell its CPUID"))
}

/// Makes a vCPU. The first starts at the kernel's 64-bit entry, the others wait to be started by it.
pub fn create(vm: &Vm, id: u8, count: u8, supported: &CpuId, entry: GuestAddress) -> Result<VcpuFd, VmError> {
    let fd = vm.fd().create_vcpu(u64::from(id)).map_err(refused("create a vCPU"))?;
    // CPUID first: it decides which registers and MSRs exist.
    let cpuid = cpuid::for_vcpu(supported, id, count)?;
    fd.set_cpuid2(&cpuid).map_err(refused("set a vCPU's CPUID"))?;
    registers::set_msrs(&fd)?;
    registers::set_fpu(&fd)?;
    if id == 0 {
        registers::set_entry(&fd, entry)?;
    }
    registers::set_lapic(&fd)?;
    Ok(fd)
}
