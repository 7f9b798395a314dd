//! The KVM virtual machine: memory, interrupt controllers, and the wires between devices and KVM.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use kvm_bindings::{KVM_API_VERSION, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::event::eventfd;
use crate::layout::{KVM_TSS, SERIAL_IRQ, slot_address, slot_irq};
use crate::memory::GuestRam;
use crate::ports::SerialLine;
use crate::virtio::mmio::register::QUEUE_NOTIFY;
use crate::virtio::slots::Wiring;
use crate::virtio::state::VirtioDevice;

/// What KVM must be able to do.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// Why KVM cannot give us this machine.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    #[error("the descriptor is not /dev/kvm: it answers KVM_GET_API_VERSION with {0}")]
    NotKvm(i32),
    #[error("KVM lacks {0}: a kernel of 4.13 or later with hardware virtualization is needed")]
    Capability(&'static str),
    #[error("KVM allows {most} vCPUs, not {wanted}")]
    TooManyVcpus { wanted: u8, most: usize },
    #[error("KVM refuses to {what}: {source}; `husk check` tests whether this machine can run guests")]
    Refused { what: &'static str, source: io::Error },
    #[error("cannot make an eventfd: {0}")]
    Eventfd(io::Error),
}

/// For `map_err`: a KVM call that failed.
pub(crate) fn refused(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> VmError {
    move |error| VmError::Refused { what, source: io::Error::from_raw_os_error(error.errno()) }
}

/// Takes `/dev/kvm`, and checks that it is that and can do what we need.
pub fn open_kvm(fd: OwnedFd) -> Result<Kvm, VmError> {
    // SAFETY: the descriptor is ours alone. That it is KVM's is checked by its answer to the first ioctl, before
    // anything relies on it.
    let kvm = unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) };
    let version = kvm.get_api_version();
    if u32::try_from(version) != Ok(KVM_API_VERSION) {
        return Err(VmError::NotKvm(version));
    }
    for (capability, name) in NEEDED {
        if !kvm.check_extension(*capability) {
            return Err(VmError::Capability(name));
        }
    }
    Ok(kvm)
}

/// A virtual machine with memory and interrupt controllers, without CPUs.
#[derive(Debug)]
pub struct Vm {
    fd: Arc<VmFd>,
    ram: Arc<GuestRam>,
}

impl Vm {
    pub fn new(kvm: &Kvm, ram: Arc<GuestRam>) -> Result<Self, VmError> {
        let fd = kvm.create_vm().map_err(refused("create a VM"))?;
        // Order: TSS before vCPUs (Intel), irqchip before PIT and vCPUs.
        fd.set_tss_address(KVM_TSS).map_err(refused("set the TSS address"))?;
        fd.create_irq_chip().map_err(refused("create interrupt controllers"))?;
        // The dummy answers port 0x61, which the kernel would otherwise wait on while calibrating.
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).map_err(refused("create a timer"))?;
        for (slot, region) in (0..).zip(ram.iter()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: address_of(region),
            };
            // SAFETY: the region is mapped for as long as `ram` lives, which this VM holds.
            unsafe { fd.set_user_memory_region(region) }.map_err(refused("map guest memory"))?;
        }
        Ok(Self { fd: Arc::new(fd), ram })
    }

    #[must_use]
    pub fn fd(&self) -> &VmFd {
        &self.fd
    }

    #[must_use]
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Makes COM1's interrupt line.
    pub fn serial_line(&self) -> Result<SerialLine, VmError> {
        let line = eventfd().map_err(VmError::Eventfd)?;
        self.fd.register_irqfd(&line, SERIAL_IRQ).map_err(refused("connect COM1's interrupt"))?;
        Ok(SerialLine(line))
    }

    /// What connects slots to this VM.
    #[must_use]
    pub fn wiring(&self) -> Box<dyn Wiring> {
        Box::new(KvmWiring { vm: Arc::clone(&self.fd) })
    }
}

fn address_of(region: &vm_memory::GuestRegionMmap<()>) -> u64 {
    // usize is 64 bits wide on the one architecture we run on.
    u64::try_from(region.as_ptr().addr()).unwrap_or_else(|_| unreachable!("x86-64"))
}

struct KvmWiring {
    vm: Arc<VmFd>,
}

/// A device's registrations with KVM; undone when dropped, in whatever state they are.
struct Wires {
    vm: Arc<VmFd>,
    /// Eventfd and interrupt line.
    interrupt: Option<(EventFd, u32)>,
    notify: IoEventAddress,
    /// Eventfd and queue number.
    kicks: Vec<(Arc<EventFd>, u32)>,
}

impl Wiring for KvmWiring {
    fn connect(&self, slot: u32, device: &VirtioDevice) -> io::Result<Box<dyn Send>> {
        let os = |error: kvm_ioctls::Error| io::Error::from_raw_os_error(error.errno());
        let notify = IoEventAddress::Mmio(slot_address(slot) + QUEUE_NOTIFY);
        let mut wires = Wires { vm: Arc::clone(&self.vm), interrupt: None, notify, kicks: Vec::new() };
        let line = device.interrupt().line().try_clone()?;
        self.vm.register_irqfd(&line, slot_irq(slot)).map_err(os)?;
        wires.interrupt = Some((line, slot_irq(slot)));
        for (queue, kick) in (0_u32..).zip(device.kicks()) {
            self.vm.register_ioevent(kick.as_ref(), &wires.notify, queue).map_err(os)?;
            wires.kicks.push((Arc::clone(kick), queue));
        }
        Ok(Box::new(wires))
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        // Failure would mean that the registration does not exist, which is what we want.
        for (kick, queue) in &self.kicks {
            let _ = self.vm.unregister_ioevent(kick.as_ref(), &self.notify, *queue);
        }
        if let Some((line, irq)) = &self.interrupt {
            let _ = self.vm.unregister_irqfd(line, *irq);
        }
    }
}
