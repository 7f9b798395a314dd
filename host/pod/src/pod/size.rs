//! What is known of the VM's size, and whose turn it is to change it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::spec::VmSize;

/// The size of a running VM.
#[derive(Debug)]
pub(super) struct Size {
    /// With this memory it booted. It cannot have less.
    boot_mib: u64,
    /// As large it can become.
    most: VmSize,
    now: Mutex<VmSize>,
    turn: tokio::sync::Mutex<()>,
}

impl Size {
    pub(super) fn new(boot: VmSize, most: VmSize) -> Self {
        Self { boot_mib: boot.memory_mib, most, now: Mutex::new(boot), turn: tokio::sync::Mutex::default() }
    }

    pub(super) fn boot_mib(&self) -> u64 {
        self.boot_mib
    }

    pub(super) fn most(&self) -> VmSize {
        self.most
    }

    fn lock(&self) -> MutexGuard<'_, VmSize> {
        // Nothing panics while it is held.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> VmSize {
        *self.lock()
    }

    pub(super) fn has_plugged(&self, mib: u64) {
        self.lock().memory_mib = self.boot_mib.saturating_add(mib);
    }

    pub(super) fn has_online(&self, vcpus: u8) {
        self.lock().vcpus = vcpus;
    }

    /// Changes come one after another.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}
