//! The virtio-mmio register file, version 2 (section 4.2.2).
//!
//! Only translation: every register is 32 bits wide and accessed whole; configuration space in any width. Accesses of
//! another width, to unknown registers, or in the wrong direction read 0 and write nothing.

use super::queue::QueueConfig;
use super::state::{VirtioDevice, high, join, low};

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"husk");
/// `SHMLen` and `SHMBase` of a shared memory region that does not exist.
const NO_SHARED_MEMORY: u32 = u32::MAX;

/// Offsets of the registers.
pub mod register {
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const SHM_FIRST: u64 = 0x0b0;
    pub const SHM_LAST: u64 = 0x0bc;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// A device behind virtio-mmio registers.
#[derive(Debug)]
pub struct MmioDevice {
    device: VirtioDevice,
    features_half: u32,
    driver_features_half: u32,
    queue: u32,
}

impl MmioDevice {
    #[must_use]
    pub fn new(device: VirtioDevice) -> Self {
        Self { device, features_half: 0, driver_features_half: 0, queue: 0 }
    }

    #[must_use]
    pub fn device(&self) -> &VirtioDevice {
        &self.device
    }

    pub fn device_mut(&mut self) -> &mut VirtioDevice {
        &mut self.device
    }

    /// The guest reads at `offset` of the slot.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(register::CONFIG) {
            self.device.spec().config.read(offset, data);
        } else {
            answer(data, || self.read_register(offset));
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            register::DEVICE_ID => self.device.spec().device_type,
            register::DEVICE_FEATURES => self.device.features(self.features_half),
            register::QUEUE_NUM_MAX => u32::from(self.device.queue_max(self.queue)),
            register::QUEUE_READY => u32::from(self.device.queue(self.queue).is_some_and(|queue| queue.ready)),
            register::INTERRUPT_STATUS => self.device.interrupt().pending(),
            register::STATUS => self.device.status(),
            register::SHM_FIRST..=register::SHM_LAST => NO_SHARED_MEMORY,
            register::CONFIG_GENERATION => self.device.spec().config.generation(),
            other => read_identity(other),
        }
    }

    /// The guest writes at `offset` of the slot.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        // No device has writable configuration; registers are written whole.
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(bytes);
        match offset {
            register::DEVICE_FEATURES_SEL => self.features_half = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_half = value,
            register::DRIVER_FEATURES => self.device.set_driver_features(self.driver_features_half, value),
            register::QUEUE_SEL => self.queue = value,
            // A size beyond 16 bits is as wrong as 0, and found when the queue is frozen.
            register::QUEUE_NUM => self.queue(|queue| queue.size = u16::try_from(value).unwrap_or(0)),
            register::QUEUE_READY => self.queue(|queue| queue.ready = value == 1),
            register::QUEUE_NOTIFY => self.notify(value),
            register::INTERRUPT_ACK => self.device.interrupt().acknowledge(value),
            register::STATUS => self.set_status(value),
            register::QUEUE_DESC_LOW => self.queue(|queue| set_low(&mut queue.descriptors, value)),
            register::QUEUE_DESC_HIGH => self.queue(|queue| set_high(&mut queue.descriptors, value)),
            register::QUEUE_DRIVER_LOW => self.queue(|queue| set_low(&mut queue.driver, value)),
            register::QUEUE_DRIVER_HIGH => self.queue(|queue| set_high(&mut queue.driver, value)),
            register::QUEUE_DEVICE_LOW => self.queue(|queue| set_low(&mut queue.device, value)),
            register::QUEUE_DEVICE_HIGH => self.queue(|queue| set_high(&mut queue.device, value)),
            _ => {}
        }
    }

    fn queue(&mut self, change: impl FnOnce(&mut QueueConfig)) {
        self.device.configure_queue(self.queue, change);
    }

    /// Normally KVM takes notifications by itself (ioeventfd); this is for one of unusual width or for a machine
    /// without that.
    fn notify(&self, queue: u32) {
        if let Some(kick) = usize::try_from(queue).ok().and_then(|queue| self.device.kicks().get(queue)) {
            let _ = kick.write(1);
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            (self.features_half, self.driver_features_half, self.queue) = (0, 0, 0);
        }
        self.device.set_status(value);
    }
}

/// What an empty slot answers: a virtio-mmio device with DeviceID 0, which drivers take for a placeholder and leave
/// alone (section 4.2.3.1.1).
pub fn read_empty(offset: u64, data: &mut [u8]) {
    answer(data, || read_identity(offset));
}

fn read_identity(offset: u64) -> u32 {
    match offset {
        register::MAGIC => MAGIC,
        register::VERSION => VERSION,
        register::VENDOR_ID => VENDOR,
        _ => 0,
    }
}

fn answer(data: &mut [u8], register: impl FnOnce() -> u32) {
    if data.len() == 4 {
        data.copy_from_slice(&register().to_le_bytes());
    } else {
        data.fill(0);
    }
}

fn set_low(address: &mut u64, value: u32) {
    *address = join(value, high(*address));
}

fn set_high(address: &mut u64, value: u32) {
    *address = join(low(*address), value);
}

#[cfg(test)]
#[path = "mmio_tests.rs"]
mod tests;
