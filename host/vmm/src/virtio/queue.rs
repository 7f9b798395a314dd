//! A virtqueue: its configuration while the driver sets it up, and the frozen queue that a device works on.
//!
//! The split is deliberate. What the driver writes into registers after DRIVER_OK can never reach an [`ActiveQueue`],
//! which has no setter: Firecracker's CVE-2026-5747 was a queue size changed after activation.

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vmm_sys_util::eventfd::EventFd;

use super::buffer::{Buffers, ChainError};
use super::interrupt::Interrupt;
use crate::memory::GuestRam;

/// What the driver has written into a queue's registers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    pub size: u16,
    pub ready: bool,
    pub descriptors: u64,
    pub driver: u64,
    pub device: u64,
}

/// Why a queue cannot be used, now or any more.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("the driver did not make queue {index} ready")]
    NotReady { index: usize },
    #[error("queue {index} with {size} entries: a power of two up to {max} is possible")]
    Size { index: usize, size: u16, max: u16 },
    #[error("queue {index}: {source}")]
    Misplaced { index: usize, source: virtio_queue::Error },
    #[error("queue {index} lies outside guest memory")]
    OutsideMemory { index: usize },
    #[error("its rings are inconsistent: {0}")]
    Ring(virtio_queue::Error),
    #[error("its rings are out of reach: {0}")]
    Memory(#[from] GuestMemoryError),
}

/// The driver wants no interrupts (section 2.7.7; without `EVENT_IDX`).
const AVAIL_NO_INTERRUPT: u16 = 1;
/// The rings' entries begin after flags and index.
const RING_HEADER: u64 = 4;
const AVAIL_ENTRY: u64 = 2;
const USED_ENTRY: u64 = 8;

/// A chain taken from the available ring. It must be given back with [`ActiveQueue::push_used`].
#[derive(Debug)]
pub struct Popped<'m> {
    pub head: u16,
    pub buffers: Result<Buffers<'m>, ChainError>,
}

/// A queue in use. Addresses and size are checked against guest memory and do not change.
#[derive(Debug)]
pub struct ActiveQueue {
    queue: Queue,
    memory: Arc<GuestRam>,
    interrupt: Interrupt,
    /// Written by KVM when the driver notifies this queue.
    kick: Arc<EventFd>,
    /// Where the used ring stood when the driver was last told of it.
    notified: Wrapping<u16>,
}

impl ActiveQueue {
    /// Checks and freezes a configuration.
    pub fn freeze(
        index: usize,
        config: &QueueConfig,
        max: u16,
        event_idx: bool,
        memory: &Arc<GuestRam>,
        interrupt: Interrupt,
        kick: Arc<EventFd>,
    ) -> Result<Self, QueueError> {
        if !config.ready {
            return Err(QueueError::NotReady { index });
        }
        let misplaced = |source| QueueError::Misplaced { index, source };
        let bad_size = |_| QueueError::Size { index, size: config.size, max };
        let mut queue = Queue::new(max).map_err(bad_size)?;
        queue.try_set_size(config.size).map_err(bad_size)?;
        queue.try_set_desc_table_address(GuestAddress(config.descriptors)).map_err(misplaced)?;
        queue.try_set_avail_ring_address(GuestAddress(config.driver)).map_err(misplaced)?;
        queue.try_set_used_ring_address(GuestAddress(config.device)).map_err(misplaced)?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        if config.driver == 0 || !queue.is_valid(memory.as_ref()) {
            return Err(QueueError::OutsideMemory { index });
        }
        Ok(Self { queue, memory: Arc::clone(memory), interrupt, kick, notified: Wrapping(0) })
    }

    #[must_use]
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Takes the next available chain. `memory` is the queue's own; it comes from outside so that the buffers do not
    /// borrow the queue.
    pub fn pop<'m>(&mut self, memory: &'m GuestRam) -> Result<Option<Popped<'m>>, QueueError> {
        debug_assert!(std::ptr::eq(memory, self.memory.as_ref()));
        let size = self.queue.size();
        let Some(chain) = self.queue.iter(memory).map_err(QueueError::Ring)?.next() else {
            return Ok(None);
        };
        Ok(Some(Popped { head: chain.head_index(), buffers: Buffers::gather(chain, memory, size) }))
    }

    /// Takes back the last [`pop`](Self::pop): the chain was not used and stays available.
    pub fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Whether a chain is available, without taking it.
    pub fn has_available(&mut self) -> Result<bool, QueueError> {
        let next = self.queue.next_avail();
        let index = self.queue.avail_idx(self.memory.as_ref(), std::sync::atomic::Ordering::Acquire);
        index.map(|index| index.0 != next).map_err(QueueError::Ring)
    }

    /// Gives a chain back with `written` bytes in it.
    pub fn push_used(&mut self, head: u16, written: usize) -> Result<(), QueueError> {
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        self.queue.add_used(self.memory.as_ref(), head, written).map_err(QueueError::Ring)
    }

    /// Gives several chains back at once: the driver sees none of them before all are there.
    pub fn push_used_together(&mut self, chains: &[(u16, usize)]) -> Result<(), QueueError> {
        let Some((&(head, written), earlier)) = chains.split_last() else { return Ok(()) };
        let size = u64::from(self.queue.size());
        let mut next = Wrapping(self.queue.next_used());
        for &(head, written) in earlier {
            let entry = RING_HEADER + u64::from(next.0) % size * USED_ENTRY;
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&u32::from(head).to_le_bytes());
            bytes[4..].copy_from_slice(&u32::try_from(written).unwrap_or(u32::MAX).to_le_bytes());
            self.memory.write_slice(&bytes, within(self.queue.used_ring(), entry)?)?;
            next += 1;
        }
        self.queue.set_next_used(next.0);
        // The index that the last one stores, with release order, is what the driver reads.
        self.push_used(head, written)
    }

    /// Interrupts the driver when chains were given back and it wants to know.
    pub fn notify(&mut self) -> Result<(), QueueError> {
        let used = Wrapping(self.queue.next_used());
        let before = std::mem::replace(&mut self.notified, used);
        if used != before && self.driver_wants_interrupt(before, used)? {
            self.interrupt.used_ring();
        }
        Ok(())
    }

    /// Whether it does when the used index has gone from `before` to `used` (section 2.7.7.2). Not
    /// `Queue::needs_notification`: that one is blind to chains which were given back together, and to the flag.
    fn driver_wants_interrupt(&self, before: Wrapping<u16>, used: Wrapping<u16>) -> Result<bool, QueueError> {
        // The used index must be visible before the driver's wish is read.
        fence(Ordering::SeqCst);
        let avail = self.queue.avail_ring();
        let wish = |offset| -> Result<u16, QueueError> {
            Ok(u16::from_le(self.memory.load(within(avail, offset)?, Ordering::Acquire)?))
        };
        if !self.queue.event_idx_enabled() {
            return Ok(wish(0)? & AVAIL_NO_INTERRUPT == 0);
        }
        let event = Wrapping(wish(RING_HEADER + u64::from(self.queue.size()) * AVAIL_ENTRY)?);
        Ok(used - event - Wrapping(1) < used - before)
    }

    /// Asks the driver for kicks; true when chains have become available meanwhile.
    pub fn enable_kicks(&mut self) -> Result<bool, QueueError> {
        self.queue.enable_notification(self.memory.as_ref()).map_err(QueueError::Ring)
    }

    /// Tells the driver that kicks are not needed for now.
    pub fn disable_kicks(&mut self) -> Result<(), QueueError> {
        self.queue.disable_notification(self.memory.as_ref()).map_err(QueueError::Ring)
    }
}

fn within(ring: u64, offset: u64) -> Result<GuestAddress, QueueError> {
    let address = ring.checked_add(offset).map(GuestAddress);
    address.ok_or(QueueError::Memory(GuestMemoryError::InvalidGuestAddress(GuestAddress(ring))))
}
