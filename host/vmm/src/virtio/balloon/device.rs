//! The loop over the queues.

use vmm_sys_util::eventfd::EventFd;

use crate::memory::{self, GuestRam};
use crate::virtio::queue::ActiveQueue;
use crate::virtio::worker::{Backend, DeviceError, Session, wait_for_kicks};

/// A balloon that stays empty.
#[derive(Debug, Default)]
pub struct Balloon {}

impl Backend for Balloon {
    fn serve(&mut self, session: Session, stop: &EventFd) -> Result<(), DeviceError> {
        let Session { memory, mut queues, .. } = session;
        loop {
            // Also at the start: the driver may have kicked before DRIVER_OK took effect.
            let mut more = false;
            for (index, queue) in queues.iter_mut().enumerate() {
                more |= serve_queue(queue, &memory, index == REPORTING)?;
            }
            if wait_for_kicks(&queues, stop, more)? {
                return Ok(());
            }
        }
    }
}

/// The queue of reports.
const REPORTING: usize = 2;

/// Gives chains back, a queue's worth at most; true when there are more. Of a report, the pages that it names have lost their memory before; it is written into, in
/// the words of the specification, so its buffers are device-writable.
pub(super) fn serve_queue(queue: &mut ActiveQueue, memory: &GuestRam, reports: bool) -> Result<bool, DeviceError> {
    for _ in 0..queue.size() {
        let Some(chain) = queue.pop(memory)? else {
            queue.notify()?;
            return Ok(queue.enable_kicks()?);
        };
        if let (true, Ok(buffers)) = (reports, &chain.buffers) {
            for slice in buffers.writable.slices() {
                // The kernel refuses nothing that lies in our own anonymous memory; pages that it would keep are only
                // not saved.
                let _ = memory::discard(slice);
            }
        }
        queue.push_used(chain.head, 0)?;
    }
    queue.notify()?;
    Ok(true)
}
