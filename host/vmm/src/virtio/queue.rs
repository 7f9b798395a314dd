//! A virtqueue: its configuration while the driver sets it up, and the frozen queue that a device works on.
//!
//! The split is deliberate. What the driver writes into registers after DRIVER_OK can never reach an [`ActiveQueue`],
//! which has no setter: Firecracker's CVE-2026-5747 was a queue size changed after activation.

use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
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
}

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
    used_since_notify: bool,
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
        queue.try_set_desc_table_address(vm_memory::GuestAddress(config.descriptors)).map_err(misplaced)?;
        queue.try_set_avail_ring_address(vm_memory::GuestAddress(config.driver)).map_err(misplaced)?;
        queue.try_set_used_ring_address(vm_memory::GuestAddress(config.device)).map_err(misplaced)?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        if config.driver == 0 || !queue.is_valid(memory.as_ref()) {
            return Err(QueueError::OutsideMemory { index });
        }
        Ok(Self { queue, memory: Arc::clone(memory), interrupt, kick, used_since_notify: false })
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
        self.queue.add_used(self.memory.as_ref(), head, written).map_err(QueueError::Ring)?;
        self.used_since_notify = true;
        Ok(())
    }

    /// Interrupts the driver when chains were given back and it wants to know.
    pub fn notify(&mut self) -> Result<(), QueueError> {
        if std::mem::take(&mut self.used_since_notify)
            && self.queue.needs_notification(self.memory.as_ref()).map_err(QueueError::Ring)?
        {
            self.interrupt.used_ring();
        }
        Ok(())
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
