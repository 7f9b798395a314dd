//! The state machine of a virtio device (section 2.1 and 3.1), the same whatever the transport.
//!
//! A transport translates its registers into these methods and nothing else.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::config::ConfigSpace;
use super::feature;
use super::interrupt::Interrupt;
use super::queue::{ActiveQueue, QueueConfig, QueueError};
use super::worker::{Session, Worker};
use crate::event::eventfd;
use crate::memory::GuestRam;

/// Bits of the device status field.
pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;
    /// What a driver may set.
    pub const DRIVER_BITS: u32 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;
}

/// What a device is, fixed when it is plugged.
#[derive(Clone, Debug)]
pub struct DeviceSpec {
    /// Short name for people: "blk".
    pub name: &'static str,
    /// Virtio device id (section 5).
    pub device_type: u32,
    /// Features on offer. The common ones of [`feature`] are added.
    pub features: u64,
    /// Largest size of each queue.
    pub queues: &'static [u16],
    /// The device-specific configuration space.
    pub config: ConfigSpace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The driver reads and writes configuration.
    Configuring,
    /// DRIVER_OK: configuration is frozen, the worker serves.
    Active,
}

/// A plugged device.
#[derive(Debug)]
pub struct VirtioDevice {
    spec: DeviceSpec,
    memory: Arc<GuestRam>,
    worker: Worker,
    interrupt: Interrupt,
    kicks: Vec<Arc<EventFd>>,
    phase: Phase,
    status: u32,
    driver_features: u64,
    queues: Vec<QueueConfig>,
    /// How many messages the driver has caused.
    complaints: u32,
}

/// Messages that a driver can cause per device: standard error may be a file, and guests must not fill it.
pub(super) const COMPLAINTS_MAX: u32 = 16;

impl VirtioDevice {
    pub fn new(mut spec: DeviceSpec, memory: Arc<GuestRam>, worker: Worker) -> std::io::Result<Self> {
        spec.features |= feature::VERSION_1 | feature::RING_EVENT_IDX;
        let kicks = spec.queues.iter().map(|_| eventfd().map(Arc::new)).collect::<Result<_, _>>()?;
        let queues = initial_queues(&spec);
        Ok(Self {
            spec,
            memory,
            worker,
            interrupt: Interrupt::new()?,
            kicks,
            phase: Phase::Configuring,
            status: 0,
            driver_features: 0,
            queues,
            complaints: 0,
        })
    }

    #[must_use]
    pub fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// One eventfd per queue, for KVM to write when the driver notifies it.
    #[must_use]
    pub fn kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    #[must_use]
    pub fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }

    /// Whether a driver has taken the device. ACKNOWLEDGE alone does not count: Linux sets it again after a driver let
    /// go (`virtio_dev_remove` in `drivers/virtio/virtio.c`).
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.status & !status::ACKNOWLEDGE != 0
    }

    /// The device status field.
    #[must_use]
    pub fn status(&self) -> u32 {
        let needs_reset = if self.interrupt.is_reset_needed() { status::NEEDS_RESET } else { 0 };
        self.status | needs_reset
    }

    /// Half of the 64 feature bits on offer; beyond them there are none.
    #[must_use]
    pub fn features(&self, half: u32) -> u32 {
        match half {
            0 => low(self.spec.features),
            1 => high(self.spec.features),
            _ => 0,
        }
    }

    /// The driver chooses half of the features. Ignored once FEATURES_OK stands (section 3.1.1).
    pub fn set_driver_features(&mut self, half: u32, bits: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        match half {
            0 => self.driver_features = join(bits, high(self.driver_features)),
            1 => self.driver_features = join(low(self.driver_features), bits),
            _ => {}
        }
    }

    /// Largest size of a queue, 0 for one that does not exist.
    #[must_use]
    pub fn queue_max(&self, index: u32) -> u16 {
        usize::try_from(index).ok().and_then(|index| self.spec.queues.get(index)).copied().unwrap_or(0)
    }

    #[must_use]
    pub fn queue(&self, index: u32) -> Option<&QueueConfig> {
        self.queues.get(usize::try_from(index).ok()?)
    }

    /// Changes a queue's configuration; ignored for one that does not exist and after DRIVER_OK.
    pub fn configure_queue(&mut self, index: u32, change: impl FnOnce(&mut QueueConfig)) {
        if self.phase == Phase::Active {
            return;
        }
        if let Some(queue) = usize::try_from(index).ok().and_then(|index| self.queues.get_mut(index)) {
            change(queue);
        }
    }

    /// Tells the driver that configuration space has changed. Before DRIVER_OK there is nobody to tell: a driver reads it
    /// when it starts.
    pub fn announce_config(&self) {
        if self.phase == Phase::Active {
            self.interrupt.config_changed();
        }
    }

    /// The driver writes the status field. 0 resets; other bits can be added, not taken away.
    pub fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        let value = value & status::DRIVER_BITS;
        if value & self.status != self.status {
            // Clearing single bits is not allowed (section 2.1.1); the device stays as it is.
            return;
        }
        let added = value & !self.status;
        self.status = value;
        if added & status::FEATURES_OK != 0 && !self.accepts_features() {
            // The driver reads the status back to see this (section 3.1.1, step 6).
            self.status &= !status::FEATURES_OK;
        }
        if added & status::DRIVER_OK != 0 {
            self.activate();
        }
    }

    fn accepts_features(&self) -> bool {
        self.driver_features & !self.spec.features == 0 && self.driver_features & feature::VERSION_1 != 0
    }

    fn activate(&mut self) {
        if self.status & status::FEATURES_OK == 0 {
            self.complain(&"the driver set DRIVER_OK without agreeing on features");
            return;
        }
        match self.freeze_queues() {
            Ok(queues) => {
                self.phase = Phase::Active;
                let session = Session { memory: Arc::clone(&self.memory), queues, features: self.driver_features };
                self.worker.start(session, self.interrupt.clone());
            }
            Err(error) => self.complain(&error),
        }
    }

    /// The driver has made a mistake that only a reset mends.
    fn complain(&mut self, mistake: &dyn std::fmt::Display) {
        if self.complaints < COMPLAINTS_MAX {
            self.complaints += 1;
            eprintln!("husk-vmm: {}: {mistake}; the driver must reset the device", self.spec.name);
        }
        self.interrupt.needs_reset();
    }

    fn freeze_queues(&self) -> Result<Vec<ActiveQueue>, QueueError> {
        let event_idx = self.driver_features & feature::RING_EVENT_IDX != 0;
        let parts = self.queues.iter().zip(self.spec.queues).zip(&self.kicks).enumerate();
        parts
            .map(|(index, ((config, max), kick))| {
                let (interrupt, kick) = (self.interrupt.clone(), Arc::clone(kick));
                ActiveQueue::freeze(index, config, *max, event_idx, &self.memory, interrupt, kick)
            })
            .collect()
    }

    /// Back to the state after plugging. The worker has let go of the driver's memory when this returns.
    pub fn reset(&mut self) {
        self.worker.stop();
        self.phase = Phase::Configuring;
        self.status = 0;
        self.driver_features = 0;
        self.queues = initial_queues(&self.spec);
        self.interrupt.reset();
        for kick in &self.kicks {
            // A kick from before the reset must not wake the next session; an empty eventfd is no error.
            let _ = kick.read();
        }
    }
}

fn initial_queues(spec: &DeviceSpec) -> Vec<QueueConfig> {
    spec.queues.iter().map(|max| QueueConfig { size: *max, ..QueueConfig::default() }).collect()
}

/// Lower half of a 64-bit register.
#[must_use]
pub fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Upper half of a 64-bit register.
#[must_use]
pub fn high(value: u64) -> u32 {
    low(value >> 32)
}

/// A 64-bit register from its halves.
#[must_use]
pub fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | (u64::from(high) << 32)
}
