//! The loop between queue and disk.

use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::EventFd;

use super::request::{Operation, Refusal, Request};
use super::{Disk, Ram, STATUS_IOERR, STATUS_OK, STATUS_UNSUPP};
use crate::event::descriptor;
use crate::virtio::buffer::{Buffers, ChainError};
use crate::virtio::queue::ActiveQueue;
use crate::virtio::worker::{Backend, DeviceError, Session, is_readable};

/// A block device. It does one request after another on its own thread, so a slow image delays nothing else, and a
/// session ends with no request in work.
#[derive(Debug)]
pub struct Blk {
    disk: Disk,
}

impl Blk {
    #[must_use]
    pub fn new(disk: Disk) -> Self {
        Self { disk }
    }

    /// Does what a chain asks for; returns how many bytes were written into it.
    fn execute(&self, buffers: Result<Buffers<'_>, ChainError>) -> usize {
        let request = buffers.and_then(|b| Request::parse(b, self.disk.capacity(), self.disk.is_read_only()));
        // Without a status byte there is nothing to tell the driver; it still gets its chain back.
        let Ok(Request { operation, status }) = request else { return 0 };
        let (code, written) = match operation {
            Ok(operation) => self.perform(operation),
            Err(Refusal::Unsupported) => (STATUS_UNSUPP, 0),
            Err(Refusal::Invalid) => (STATUS_IOERR, 0),
        };
        status.copy_from(&[code]);
        written + 1
    }

    fn perform(&self, operation: Operation<'_>) -> (u8, usize) {
        let (result, written) = match operation {
            Operation::Read { offset, into } => {
                let length = into.len();
                (self.disk.read(offset, into), length)
            }
            Operation::Write { offset, from } => (self.disk.write(offset, from), 0),
            Operation::Flush => (self.disk.flush(), 0),
            Operation::GetId { into } => (Ok(()), into.copy_from(self.disk.serial())),
            Operation::Discard(ranges) => (ranges.into_iter().try_for_each(|range| self.disk.discard(range)), 0),
            Operation::WriteZeroes(ranges) => {
                (ranges.into_iter().try_for_each(|range| self.disk.write_zeroes(range)), 0)
            }
        };
        match result {
            Ok(()) => (STATUS_OK, written),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => (STATUS_UNSUPP, 0),
            // The guest makes an I/O error of it, and its kernel logs sector and device.
            Err(_) => (STATUS_IOERR, 0),
        }
    }

    /// Works off what is available. Between requests `stop` is looked at.
    fn drain(&self, queue: &mut ActiveQueue, memory: &Ram, stop: &EventFd) -> Result<(), DeviceError> {
        loop {
            queue.disable_kicks()?;
            while let Some(chain) = queue.pop(memory)? {
                let written = self.execute(chain.buffers);
                queue.push_used(chain.head, written)?;
                queue.notify()?;
                if is_readable(stop)? {
                    return Ok(());
                }
            }
            if !queue.enable_kicks()? {
                return Ok(());
            }
        }
    }
}

impl Backend for Blk {
    fn serve(&mut self, session: Session, stop: &EventFd) -> Result<(), DeviceError> {
        let Session { memory, mut queues, .. } = session;
        // The transport starts a session with all queues of the spec.
        let Some(queue) = queues.first_mut() else { return Ok(()) };
        loop {
            // Also at the start: the driver may have made requests available before DRIVER_OK took effect.
            self.drain(queue, &memory, stop)?;
            let mut fds = [
                PollFd::from_borrowed_fd(descriptor(stop), PollFlags::IN),
                PollFd::from_borrowed_fd(descriptor(queue.kick()), PollFlags::IN),
            ];
            rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            let [stop_fd, _] = &fds;
            if !stop_fd.revents().is_empty() {
                return Ok(());
            }
            let _ = queue.kick().read();
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
