//! The row of virtio-mmio slots: places on the bus that stay where they are while devices come and go.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use husk_vmm_control::{SlotIndex, SlotState};

use super::mmio::{MmioDevice, read_empty};
use super::state::VirtioDevice;
use crate::layout::{SLOT_COUNT, SLOT_SIZE, SLOTS};

/// Why a device cannot be plugged or unplugged.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    #[error("all {SLOT_COUNT} slots are filled: unplug a device first")]
    Full,
    #[error("slot {} does not exist: the last one is {}", .0.0, SLOT_COUNT - 1)]
    NoSuchSlot(SlotIndex),
    #[error("slot {} is empty", .0.0)]
    Empty(SlotIndex),
    #[error(
        "the guest's driver still holds the {device} in slot {}: unbind virtio-mmio.{} in the guest first, or force it",
        slot.0, slot.0
    )]
    Busy { slot: SlotIndex, device: &'static str },
    #[error("the {device} in slot {} belongs to the machine and cannot be unplugged", slot.0)]
    Fixed { slot: SlotIndex, device: &'static str },
    #[error("connecting slot {} to KVM: {source}", slot.0)]
    Wire { slot: SlotIndex, source: io::Error },
}

/// Connects a plugged device to KVM: its interrupt line and its queue notifications. Dropping the result disconnects.
pub trait Wiring: Send + Sync {
    fn connect(&self, slot: u32, device: &VirtioDevice) -> io::Result<Box<dyn Send>>;
}

struct Filled {
    // Dropped in this order: no notification may arrive at a device that is gone.
    _wires: Box<dyn Send>,
    mmio: MmioDevice,
}

/// All slots. Each has a lock of its own; no code holds two.
pub struct SlotTable {
    slots: Vec<Mutex<Option<Filled>>>,
    wiring: Box<dyn Wiring>,
}

impl std::fmt::Debug for SlotTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SlotTable").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

impl SlotTable {
    #[must_use]
    pub fn new(wiring: Box<dyn Wiring>) -> Arc<Self> {
        let slots = (0..SLOT_COUNT).map(|_| Mutex::new(None)).collect();
        Arc::new(Self { slots, wiring })
    }

    /// Fills the lowest free slot.
    pub fn plug(&self, device: VirtioDevice) -> Result<SlotIndex, SlotError> {
        for (index, slot) in (0..).map(SlotIndex).zip(&self.slots) {
            let mut slot = lock(slot);
            if slot.is_none() {
                *slot = Some(self.fill(index, device)?);
                return Ok(index);
            }
        }
        Err(SlotError::Full)
    }

    /// Fills that slot, for a device of the machine itself.
    pub fn plug_at(&self, index: SlotIndex, device: VirtioDevice) -> Result<(), SlotError> {
        let mut slot = lock(self.place(index)?);
        if slot.is_some() {
            return Err(SlotError::Full);
        }
        *slot = Some(self.fill(index, device)?);
        Ok(())
    }

    fn fill(&self, slot: SlotIndex, device: VirtioDevice) -> Result<Filled, SlotError> {
        let wires = self.wiring.connect(slot.0, &device).map_err(|source| SlotError::Wire { slot, source })?;
        Ok(Filled { _wires: wires, mmio: MmioDevice::new(device) })
    }

    /// Empties a slot. Without `force` only when no driver holds the device.
    pub fn unplug(&self, index: SlotIndex, force: bool) -> Result<(), SlotError> {
        let mut slot = lock(self.place(index)?);
        let filled = slot.as_ref().ok_or(SlotError::Empty(index))?;
        if filled.mmio.device().is_held() && !force {
            return Err(SlotError::Busy { slot: index, device: filled.mmio.device().spec().name });
        }
        let filled = slot.take();
        // The guest sees an empty slot from here on, while the device finishes what it has in work.
        drop(slot);
        drop(filled);
        Ok(())
    }

    /// Tells the driver of a slot's device that its configuration space has changed.
    pub fn announce_config(&self, index: SlotIndex) -> Result<(), SlotError> {
        lock(self.place(index)?).as_ref().ok_or(SlotError::Empty(index))?.mmio.device().announce_config();
        Ok(())
    }

    fn place(&self, index: SlotIndex) -> Result<&Mutex<Option<Filled>>, SlotError> {
        let place = usize::try_from(index.0).ok().and_then(|place| self.slots.get(place));
        place.ok_or(SlotError::NoSuchSlot(index))
    }

    /// Refuses a slot that does not exist or is empty.
    pub fn check_filled(&self, index: SlotIndex) -> Result<(), SlotError> {
        if lock(self.place(index)?).is_some() { Ok(()) } else { Err(SlotError::Empty(index)) }
    }

    /// Empties every slot, when the machine ends.
    pub fn clear(&self) {
        for slot in &self.slots {
            let filled = lock(slot).take();
            drop(filled);
        }
    }

    /// Every filled slot.
    #[must_use]
    pub fn states(&self) -> Vec<SlotState> {
        let describe = |(index, slot): (u32, &Mutex<Option<Filled>>)| {
            lock(slot).as_ref().map(|filled| SlotState {
                slot: SlotIndex(index),
                device: filled.mmio.device().spec().name.to_owned(),
                active: filled.mmio.device().is_active(),
            })
        };
        (0..).zip(&self.slots).filter_map(describe).collect()
    }

    /// Whether an address belongs to a slot, and to which, at what offset.
    fn find(&self, address: u64) -> Option<(&Mutex<Option<Filled>>, u64)> {
        let offset = address.checked_sub(SLOTS)?;
        let slot = self.slots.get(usize::try_from(offset / SLOT_SIZE).ok()?)?;
        Some((slot, offset % SLOT_SIZE))
    }

    /// The guest reads; an address of no slot reads as all ones, like a bus without a device there.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((slot, offset)) => match lock(slot).as_ref() {
                Some(filled) => filled.mmio.read(offset, data),
                None => read_empty(offset, data),
            },
            None => data.fill(0xff),
        }
    }

    /// The guest writes.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((slot, offset)) = self.find(address)
            && let Some(filled) = lock(slot).as_mut()
        {
            filled.mmio.write(offset, data);
        }
    }
}

/// A panic elsewhere leaves a slot in a defined state: its state machine has no step that can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
