//! The kernel command line: what the machine needs, then what the caller adds.

use std::fmt::Write;

use crate::layout::{CMDLINE_MAX, PORT_READY, SLOT_COUNT, slot_address, slot_irq};

/// What every guest gets.
///
/// - `console=ttyS0 loglevel=4`: errors and worse reach the console log; each byte there is a VM exit.
/// - `earlyprintk=ttyS0`: also those from before the console driver; a kernel that dies early would leave an empty log.
/// - `reboot=k panic=1`: a panic becomes an i8042 reset after a second, which ends the VM.
/// - `nomodule`: there are none.
/// - `i8042.*`: no probing of a keyboard controller that answers only a reset.
/// - `random.trust_cpu=on`: the random pool is ready at once.
/// - `no_timer_check`: the interrupt controller is KVM's; testing its wiring takes time.
/// - `tsc=reliable`: no watchdog measuring the TSC against slower clocks.
/// - `swiotlb=noforce`: no bounce buffers, there is no such DMA.
/// - `memory_hotplug.online_policy=auto-movable`: of memory that is plugged, three times what the kernel has for itself
///   holds only what can be moved, so that it can be unplugged again; of what goes beyond, a quarter is the kernel's, which
///   needs it to manage the rest (`mm/memory_hotplug.c`). With movable memory alone a small VM could not grow far.
/// - `dummy.numdummies=0 fb_tunnels=none`: no interfaces but those that the pod is given, and loopback.
const FIXED: &str = "console=ttyS0 loglevel=4 earlyprintk=ttyS0 reboot=k panic=1 nomodule \
    i8042.noaux i8042.nomux i8042.dumbkbd i8042.nopnp \
    random.trust_cpu=on no_timer_check tsc=reliable swiotlb=noforce \
    memory_hotplug.online_policy=auto-movable dummy.numdummies=0 fb_tunnels=none";

/// Why the command line cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    #[error("the kernel command line may hold only printable ASCII; byte {position} of the addition is {byte:#04x}")]
    NotPrintable { position: usize, byte: u8 },
    #[error(
        "the kernel command line has {length} bytes, at most {max} fit: shorten the addition by {}",
        length - max
    )]
    TooLong { length: usize, max: usize },
}

/// Makes the command line of a guest that brings `online_vcpus` CPUs up by itself. `addition` is at its end, so that it
/// overrides and may hold `-- init arguments`.
pub fn command_line(online_vcpus: u8, addition: &str) -> Result<String, CmdlineError> {
    if let Some((position, byte)) = addition.bytes().enumerate().find(|(_, byte)| !(0x20..0x7f).contains(byte)) {
        return Err(CmdlineError::NotPrintable { position, byte });
    }
    let mut line = format!("{FIXED} maxcpus={online_vcpus} husk.port={PORT_READY:#x}");
    for slot in 0..SLOT_COUNT {
        // Without an id the platform devices are numbered in this order.
        write!(line, " virtio_mmio.device=4K@{:#x}:{}", slot_address(slot), slot_irq(slot))
            .unwrap_or_else(|_| unreachable!("writing to a String does not fail"));
    }
    if !addition.is_empty() {
        line.push(' ');
        line.push_str(addition);
    }
    let max = CMDLINE_MAX - 1;
    if line.len() > max {
        return Err(CmdlineError::TooLong { length: line.len(), max });
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_named_once_and_room_is_left() {
        let line = command_line(1, "").unwrap();
        assert_eq!(line.matches("virtio_mmio.device=").count(), 32);
        assert!(line.contains(" maxcpus=1 husk.port=0x510 "));
        assert!(line.contains("4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6"));
        assert!(line.contains("4K@0xd001f000:17"));
        assert!(line.len() < CMDLINE_MAX - 384, "{}", line.len());
    }

    #[test]
    fn the_addition_comes_last() {
        assert!(command_line(1, "quiet -- --flag").unwrap().ends_with(" quiet -- --flag"));
    }

    #[test]
    fn control_characters_are_refused() {
        assert_eq!(command_line(1, "a\nb"), Err(CmdlineError::NotPrintable { position: 1, byte: b'\n' }));
        assert!(command_line(1, "\u{e9}").is_err());
    }

    #[test]
    fn a_long_addition_is_refused() {
        assert!(matches!(command_line(1, &"x".repeat(2000)), Err(CmdlineError::TooLong { .. })));
    }
}
