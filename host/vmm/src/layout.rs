//! The guest-physical address map, interrupt lines and ports of the machine.
//!
//! Everything that two parts of the VMM, or the VMM and the guest, must agree on by number is here.

/// First byte of the hole below 4 GiB that holds no RAM.
pub const MMIO_GAP_START: u64 = 0xc000_0000;
/// RAM beyond the hole continues here.
pub const MMIO_GAP_END: u64 = 0x1_0000_0000;

/// Boot GDT; read by the boot CPU until the kernel loads its own.
pub const GDT: u64 = 0x500;
/// Boot IDT: one empty entry.
pub const IDT: u64 = 0x520;
/// `struct boot_params` ("zero page").
pub const ZERO_PAGE: u64 = 0x7000;
/// Initial stack pointer of the boot CPU.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Page tables of the boot CPU: one page each, identity-mapping the first GiB.
pub const PML4: u64 = 0x9000;
pub const PDPT: u64 = 0xa000;
pub const PD: u64 = 0xb000;
/// Kernel command line, NUL-terminated.
pub const CMDLINE: u64 = 0x2_0000;
/// Longest command line with its NUL: `COMMAND_LINE_SIZE` of Linux on x86.
pub const CMDLINE_MAX: usize = 2048;
/// End of the low RAM that the guest may use; a PC has its EBDA here.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// MPTable. Linux looks for its signature between 0xf0000 and 0xfffff (`arch/x86/kernel/mpparse.c`).
pub const MPTABLE: u64 = 0xf_0000;
pub const MPTABLE_MAX: usize = 0x1_0000;
/// The kernel is loaded from here on.
pub const HIGH_RAM: u64 = 0x10_0000;

pub const IOAPIC: u32 = 0xfec0_0000;
pub const LAPIC: u32 = 0xfee0_0000;
/// Three pages that KVM needs on Intel hosts.
pub const KVM_TSS: usize = 0xfffb_d000;

/// First virtio-mmio slot.
pub const SLOTS: u64 = 0xd000_0000;
/// Bytes of address space per slot.
pub const SLOT_SIZE: u64 = 0x1000;
/// Number of slots; the N of `virtio-mmio.N` counts them from 0.
pub const SLOT_COUNT: u32 = 32;
/// The slot that holds the vsock device from boot on.
pub const VSOCK_SLOT: u32 = 0;
/// Slot of the balloon.
pub const BALLOON_SLOT: u32 = SLOT_COUNT - 1;
/// Slot of the device that plugs memory, in a machine that has such.
pub const MEM_SLOT: u32 = SLOT_COUNT - 2;

/// Interrupt lines that slots use. Lower ones belong to legacy devices (4 is COM1).
pub const FIRST_SLOT_IRQ: u32 = 5;
/// The IOAPIC's last line.
pub const LAST_IRQ: u32 = 23;
/// Interrupt line of COM1.
pub const SERIAL_IRQ: u32 = 4;

/// First port of COM1.
pub const PORT_SERIAL: u16 = 0x3f8;
pub const PORT_SERIAL_LAST: u16 = 0x3ff;
/// i8042 command and status port.
pub const PORT_I8042: u16 = 0x64;
/// Written to [`PORT_I8042`], resets a PC.
pub const I8042_RESET: u8 = 0xfe;

/// Husk's own ports. The guest learns the number from `husk.port=` on its command line.
///
/// A byte [`READY_MAGIC`] written to this port says that the agent is ready.
pub const PORT_READY: u16 = 0x510;
/// A byte written to this port ends the VM with that exit code.
pub const PORT_EXIT: u16 = PORT_READY + 1;
/// The byte that [`PORT_READY`] expects; others are ignored.
pub const READY_MAGIC: u8 = 0x7b;

/// Interrupt line of a slot. 32 slots share 19 lines; Linux asks for virtio-mmio lines with `IRQF_SHARED`.
#[must_use]
pub const fn slot_irq(slot: u32) -> u32 {
    FIRST_SLOT_IRQ + slot % (LAST_IRQ - FIRST_SLOT_IRQ + 1)
}

/// First address of a slot.
#[must_use]
pub fn slot_address(slot: u32) -> u64 {
    SLOTS + u64::from(slot) * SLOT_SIZE
}
