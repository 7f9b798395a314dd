//! A device's way to the driver's attention.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

use crate::event::eventfd;

/// `InterruptStatus` bit: a used ring has changed.
pub const USED_RING: u32 = 1;
/// `InterruptStatus` bit: the configuration or the device's status has changed.
pub const CONFIG: u32 = 2;

/// Shared by the transport, which the driver acknowledges through, and the device's thread.
#[derive(Clone, Debug)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pending: AtomicU32,
    needs_reset: AtomicBool,
    /// KVM turns a write into an edge on the interrupt line.
    line: EventFd,
}

impl Interrupt {
    pub fn new() -> io::Result<Self> {
        let line = eventfd()?;
        Ok(Self { shared: Arc::new(Shared { pending: AtomicU32::new(0), needs_reset: AtomicBool::new(false), line }) })
    }

    /// To be registered with KVM as an irqfd.
    #[must_use]
    pub fn line(&self) -> &EventFd {
        &self.shared.line
    }

    fn raise(&self, bit: u32) {
        self.shared.pending.fetch_or(bit, Ordering::SeqCst);
        // Only a counter at its end could refuse, and KVM empties it with every edge.
        let _ = self.shared.line.write(1);
    }

    /// Tells the driver to look at its used rings.
    pub fn used_ring(&self) {
        self.raise(USED_RING);
    }

    /// Tells the driver to read configuration space again.
    pub fn config_changed(&self) {
        self.raise(CONFIG);
    }

    /// Puts the device into DEVICE_NEEDS_RESET (section 2.1.2): it cannot go on until the driver resets it.
    pub fn needs_reset(&self) {
        self.shared.needs_reset.store(true, Ordering::SeqCst);
        self.raise(CONFIG);
    }

    #[must_use]
    pub fn is_reset_needed(&self) -> bool {
        self.shared.needs_reset.load(Ordering::SeqCst)
    }

    /// The `InterruptStatus` register.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.shared.pending.load(Ordering::SeqCst)
    }

    /// The `InterruptACK` register.
    pub fn acknowledge(&self, bits: u32) {
        self.shared.pending.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Back to the state after creation.
    pub fn reset(&self) {
        self.shared.pending.store(0, Ordering::SeqCst);
        self.shared.needs_reset.store(false, Ordering::SeqCst);
        let _ = self.shared.line.read();
    }
}
