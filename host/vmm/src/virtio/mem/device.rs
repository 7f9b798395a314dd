//! The loop over the queue, and the machine's hold on the device.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

use super::blocks::{Blocks, MemoryState, RequestError};
use super::request::{REQUEST_LEN, RESPONSE_LEN, Range, Request, Response};
use super::{BLOCK, spec};
use crate::memory::{self, GuestRam, Hotplug};
use crate::virtio::buffer::Buffers;
use crate::virtio::config::ConfigSpace;
use crate::virtio::queue::ActiveQueue;
use crate::virtio::state::DeviceSpec;
use crate::virtio::worker::{Backend, DeviceError, Session, wait_for_kicks};

/// What the device's thread and the machine share.
#[derive(Debug)]
struct Shared {
    blocks: Mutex<Blocks>,
    config: ConfigSpace,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Blocks> {
        // Nothing panics while it is held.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the blocks, and what the driver reads of them with it.
    fn change<T>(&self, change: impl FnOnce(&mut Blocks) -> T) -> T {
        let mut blocks = self.lock();
        let result = change(&mut blocks);
        self.config.set(blocks.config());
        result
    }
}

/// The device. What is plugged stays so over a reset of it: the memory may hold the driver itself.
#[derive(Debug)]
pub struct Mem {
    shared: Arc<Shared>,
}

/// The machine's side of it.
#[derive(Clone, Debug)]
pub struct MemHandle {
    shared: Arc<Shared>,
}

impl MemHandle {
    /// Says how much the guest shall have plugged. The driver must be told (`SlotTable::announce_config`).
    pub fn request(&self, mib: u64) -> Result<(), RequestError> {
        self.shared.change(|blocks| blocks.request(mib))
    }

    #[must_use]
    pub fn state(&self) -> MemoryState {
        self.shared.lock().state()
    }
}

impl Mem {
    #[must_use]
    pub fn new(region: Hotplug) -> Self {
        let blocks = Blocks::new(region);
        let config = blocks.config().into();
        Self { shared: Arc::new(Shared { blocks: Mutex::new(blocks), config }) }
    }

    #[must_use]
    pub fn spec(&self) -> DeviceSpec {
        spec(self.shared.config.clone())
    }

    #[must_use]
    pub fn handle(&self) -> MemHandle {
        MemHandle { shared: Arc::clone(&self.shared) }
    }

    /// Answers what is available, a queue's worth at most; true when there is more.
    pub(super) fn serve_queue(&self, queue: &mut ActiveQueue, memory: &GuestRam) -> Result<bool, DeviceError> {
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(memory)? else {
                queue.notify()?;
                return Ok(queue.enable_kicks()?);
            };
            let written = chain.buffers.map_or(0, |buffers| self.answer(buffers, memory));
            queue.push_used(chain.head, written)?;
        }
        queue.notify()?;
        Ok(true)
    }

    /// Does what a chain asks for, and writes the response into it. Nothing is done when that has no room.
    fn answer(&self, mut buffers: Buffers<'_>, memory: &GuestRam) -> usize {
        if buffers.writable.len() < RESPONSE_LEN {
            return 0;
        }
        let request = buffers.readable.read::<REQUEST_LEN>().ok().and_then(Request::parse);
        let response = request.map_or(Response::Error, |request| self.perform(request, memory));
        buffers.writable.copy_from(&response.bytes())
    }

    fn perform(&self, request: Request, memory: &GuestRam) -> Response {
        match request {
            Request::Plug(range) => self.shared.change(|blocks| blocks.plug(range)),
            Request::Unplug(range) => self.unplug(range, memory),
            Request::UnplugAll => self.unplug_all(memory),
            Request::State(range) => self.shared.lock().state_of(range),
        }
    }

    /// The lock is not held while the host takes the memory back, which may take a while: only this thread changes what
    /// is plugged.
    fn unplug(&self, range: Range, memory: &GuestRam) -> Response {
        if !self.shared.lock().are_plugged(range) {
            return Response::Error;
        }
        if !discard(memory, range.address, u64::from(range.blocks).saturating_mul(BLOCK)) {
            return Response::Busy;
        }
        self.shared.change(|blocks| blocks.unplug(range));
        Response::Ack
    }

    /// Also what the guest has touched without plugging it.
    fn unplug_all(&self, memory: &GuestRam) -> Response {
        let region = self.shared.lock().region();
        if !discard(memory, region.address, region.size) {
            return Response::Busy;
        }
        self.shared.change(Blocks::unplug_all);
        Response::Ack
    }
}

/// Gives memory of the region back to the host; whether that succeeded.
fn discard(memory: &GuestRam, address: u64, size: u64) -> bool {
    let slice = usize::try_from(size).ok().and_then(|size| memory.get_slice(GuestAddress(address), size).ok());
    slice.is_some_and(|slice| memory::discard(&slice).is_ok())
}

impl Backend for Mem {
    fn serve(&mut self, session: Session, stop: &EventFd) -> Result<(), DeviceError> {
        let Session { memory, mut queues, .. } = session;
        loop {
            // Also at the start: the driver may have kicked before DRIVER_OK took effect.
            let mut more = false;
            for queue in &mut queues {
                more |= self.serve_queue(queue, &memory)?;
            }
            if wait_for_kicks(&queues, stop, more)? {
                return Ok(());
            }
        }
    }
}
