//! The loop between queues and file server.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use husk_fs::{Limits, Server, ServerError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, getrlimit};
use vmm_sys_util::eventfd::EventFd;

use super::chain::{Reply, Request};
use super::{DESCRIPTORS_KEPT, DEVICE_TYPE, HANDLES_MAX, NAME, NODES_MAX, QUEUES, TAG_LEN};
use crate::event::descriptor;
use crate::memory::GuestRam;
use crate::seccomp;
use crate::virtio::buffer::{Buffers, ChainError};
use crate::virtio::queue::ActiveQueue;
use crate::virtio::state::DeviceSpec;
use crate::virtio::worker::{Backend, DeviceError, Session, is_readable};

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    #[error("the tag {0:?} is not 1 to {TAG_LEN} bytes of printable ASCII without space")]
    Tag(String),
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// A file system device. Its exports are added to and taken from its [`server`](Self::server), which outlives sessions.
#[derive(Debug)]
pub struct Fs {
    tag: [u8; TAG_LEN],
    server: Arc<Server>,
}

/// What a guest may hold, so that this process never runs out of descriptors for anything else. To be asked before the
/// main thread is confined.
#[must_use]
pub fn limits() -> Limits {
    let all = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = all - DESCRIPTORS_KEPT.min(all / 2);
    // Seven eighths for nodes: a directory entry cache is larger than the set of open files.
    let handles = usize::try_from(most / 8).unwrap_or(usize::MAX);
    Limits { nodes: NODES_MAX.min(handles.saturating_mul(7)), handles: HANDLES_MAX.min(handles) }
}

impl Fs {
    /// A device without exports. `descriptors` is `/proc/PID/fd` of this process; `limits` bound what the guest holds.
    pub fn new(tag: &str, descriptors: OwnedFd, limits: Limits) -> Result<Self, FsError> {
        let bad = || FsError::Tag(tag.to_owned());
        let mut padded = [0; TAG_LEN];
        let good = !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_graphic());
        padded.get_mut(..tag.len()).filter(|_| good).ok_or_else(bad)?.copy_from_slice(tag.as_bytes());
        Ok(Self { tag: padded, server: Arc::new(Server::new(descriptors, limits)?) })
    }

    #[must_use]
    pub fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server)
    }

    /// What the driver is told: `struct virtio_fs_config` (section 5.11.4).
    #[must_use]
    pub fn spec(&self) -> DeviceSpec {
        let mut config = self.tag.to_vec();
        config.extend_from_slice(&1_u32.to_le_bytes()); // num_request_queues
        DeviceSpec { name: NAME, device_type: DEVICE_TYPE, features: 0, queues: QUEUES, config: config.into() }
    }

    /// Does what a chain asks for; returns how many bytes were written into it.
    fn execute(&self, buffers: Result<Buffers<'_>, ChainError>) -> usize {
        // A chain that is none gets no answer; the driver gets it back.
        let Ok(Buffers { readable, writable }) = buffers else { return 0 };
        self.server.serve(&mut Request(readable), &mut Reply(writable))
    }

    /// Works off what is available. Between requests `stop` is looked at.
    pub(super) fn drain(&self, queue: &mut ActiveQueue, memory: &GuestRam, stop: &EventFd) -> Result<(), DeviceError> {
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

    fn serve_queues(&self, session: Session, stop: &EventFd) -> Result<(), DeviceError> {
        let Session { memory, mut queues, .. } = session;
        loop {
            // Also at the start: the driver may have made requests available before DRIVER_OK took effect.
            for queue in &mut queues {
                self.drain(queue, &memory, stop)?;
            }
            let mut fds = vec![PollFd::from_borrowed_fd(descriptor(stop), PollFlags::IN)];
            fds.extend(queues.iter().map(|queue| PollFd::from_borrowed_fd(descriptor(queue.kick()), PollFlags::IN)));
            rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            if fds.first().is_some_and(|stop| !stop.revents().is_empty()) {
                return Ok(());
            }
            for queue in &queues {
                // Those that were not kicked are empty, which is no error.
                let _ = queue.kick().read();
            }
        }
    }
}

impl Backend for Fs {
    const ROLE: seccomp::Role = seccomp::Role::Files;

    fn serve(&mut self, session: Session, stop: &EventFd) -> Result<(), DeviceError> {
        let result = self.serve_queues(session, stop);
        // The next driver knows nothing of what this one held.
        self.server.disconnect();
        result
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
