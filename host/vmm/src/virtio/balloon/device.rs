//! The loop over the queues.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

use crate::event::descriptor;
use crate::memory::{self, GuestRam};
use crate::virtio::queue::ActiveQueue;
use crate::virtio::worker::{Backend, DeviceError, Session};

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
            if wait(&queues, stop, more)? {
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

/// Waits for kicks, unless there is `more` to do; true when the session is over.
fn wait(queues: &[ActiveQueue], stop: &EventFd, more: bool) -> Result<bool, DeviceError> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let events = queues.iter().map(ActiveQueue::kick).chain([stop]);
    let mut fds: Vec<_> = events.map(|event| PollFd::from_borrowed_fd(descriptor(event), PollFlags::IN)).collect();
    rustix::io::retry_on_intr(|| poll(&mut fds, more.then_some(&now)))?;
    for queue in queues {
        let _ = queue.kick().read();
    }
    Ok(fds.last().is_some_and(|stop| !stop.revents().is_empty()))
}
