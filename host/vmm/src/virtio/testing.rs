//! A driver's side for tests of devices: memory, a ring, a session.

use std::sync::Arc;

use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

use super::buffer::Buffer;
use super::interrupt::Interrupt;
use super::queue::{ActiveQueue, QueueConfig};
use crate::event::eventfd;
use crate::memory::GuestRam;

pub(crate) const RAM_SIZE: usize = 4 << 20;

pub(crate) fn ram() -> Arc<GuestRam> {
    Arc::new(GuestRam::from_ranges(&[(GuestAddress(0), RAM_SIZE)]).unwrap())
}

/// Guest memory as a device sees it.
pub(crate) fn buffer<'m>(ram: &'m GuestRam, pieces: &[(u64, usize)]) -> Buffer<'m> {
    let mut buffer = Buffer::default();
    for (address, length) in pieces {
        buffer.push(ram.get_slice(GuestAddress(*address), *length).unwrap()).unwrap();
    }
    buffer
}

pub(crate) fn read(ram: &GuestRam, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

/// One part of a chain: address, length, whether the device may write there.
pub(crate) type Part = (u64, u32, bool);

/// A split ring with its driver.
pub(crate) struct Ring<'m> {
    mock: MockSplitQueue<'m, GuestRam>,
    size: u16,
    next_descriptor: u16,
    next_used: u16,
    pub(crate) kick: Arc<EventFd>,
}

impl<'m> Ring<'m> {
    pub(crate) fn new(ram: &'m GuestRam, address: u64, size: u16) -> Self {
        // The mock puts the used ring over the upper half of the available ring; the room for twice the entries does.
        let mock = MockSplitQueue::create(ram, GuestAddress(address), 2 * size);
        Self { mock, size, next_descriptor: 0, next_used: 0, kick: Arc::new(eventfd().unwrap()) }
    }

    pub(crate) fn config(&self) -> QueueConfig {
        QueueConfig {
            size: self.size,
            ready: true,
            descriptors: self.mock.desc_table_addr().0,
            driver: self.mock.avail_addr().0,
            device: self.mock.used_addr().0,
        }
    }

    pub(crate) fn activate(&self, ram: &Arc<GuestRam>, interrupt: Interrupt) -> ActiveQueue {
        let kick = Arc::clone(&self.kick);
        ActiveQueue::freeze(0, &self.config(), self.size, false, ram, interrupt, kick).unwrap()
    }

    /// Makes a chain available and kicks; returns its head.
    pub(crate) fn offer(&mut self, parts: &[Part]) -> u16 {
        let head = self.next_descriptor;
        for (index, (address, length, writable)) in parts.iter().enumerate() {
            let at = self.next_descriptor;
            self.next_descriptor = (at + 1) % self.size;
            let write = if *writable { VRING_DESC_F_WRITE } else { 0 };
            let next = if index + 1 < parts.len() { VRING_DESC_F_NEXT } else { 0 };
            let flags = u16::try_from(write | next).unwrap();
            let descriptor = Descriptor::new(*address, *length, flags, self.next_descriptor);
            self.mock.desc_table().store(at, RawDescriptor::from(descriptor)).unwrap();
        }
        self.make_available(head);
        head
    }

    pub(crate) fn make_available(&mut self, head: u16) {
        let index = self.mock.avail().idx().load();
        self.mock.avail().ring().ref_at(usize::from(index % self.size)).unwrap().store(head);
        self.mock.avail().idx().store(index.wrapping_add(1));
        self.kick.write(1).unwrap();
    }

    /// The next chain that the device gave back: its head and how much was written. Waits for it.
    pub(crate) fn used(&mut self) -> (u32, u32) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            if let Some(used) = self.try_used() {
                return used;
            }
            assert!(std::time::Instant::now() < end, "the device does not give the chain back");
            std::thread::yield_now();
        }
    }

    pub(crate) fn try_used(&mut self) -> Option<(u32, u32)> {
        if self.mock.used().idx().load() == self.next_used {
            return None;
        }
        let element = self.mock.used().ring().ref_at(usize::from(self.next_used % self.size)).unwrap().load();
        self.next_used = self.next_used.wrapping_add(1);
        Some((element.id(), element.len()))
    }
}
