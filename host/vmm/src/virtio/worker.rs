//! The thread that a device runs on.
//!
//! It is made when the device is plugged and ends when it is unplugged. Between DRIVER_OK and the next reset it serves
//! a [`Session`]; stopping one waits until the device holds none of the driver's memory any more.
//!
//! The thread is made by the VMM's main thread, never by a vCPU's: a thread inherits its maker's seccomp filter.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::EventFd;

use super::interrupt::Interrupt;
use super::queue::{ActiveQueue, QueueError};
use super::state::COMPLAINTS_MAX;
use crate::event::{descriptor, eventfd};
use crate::memory::GuestRam;
use crate::seccomp;

/// Why a device cannot go on until it is reset.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("waiting for events: {0}")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for DeviceError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// What a device works with from DRIVER_OK to reset.
#[derive(Debug)]
pub struct Session {
    pub memory: Arc<GuestRam>,
    /// Every queue of the device, in order.
    pub queues: Vec<ActiveQueue>,
    /// Features that driver and device agreed on.
    pub features: u64,
}

/// The work of a device.
pub trait Backend: Send + 'static {
    /// What the device's thread may do.
    const ROLE: seccomp::Role = seccomp::Role::Device;

    /// Serves until `stop` becomes readable. Requests in work are finished before it returns.
    fn serve(&mut self, session: Session, stop: &EventFd) -> Result<(), DeviceError>;
}

/// Handle to a device's thread.
#[derive(Debug)]
pub struct Worker {
    commands: Option<Sender<(Session, Interrupt)>>,
    stop: Arc<EventFd>,
    stopped: Receiver<()>,
    serving: bool,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread, idle and under its seccomp filter.
    pub fn spawn<B: Backend>(name: &str, backend: B) -> io::Result<Self> {
        Self::spawn_with(name, backend, || seccomp::confine(B::ROLE))
    }

    /// For unit tests of backends that do more than a device may.
    #[cfg(test)]
    pub(crate) fn spawn_unconfined(name: &str, backend: impl Backend) -> io::Result<Self> {
        Self::spawn_with(name, backend, || Ok(()))
    }

    fn spawn_with(
        name: &str,
        mut backend: impl Backend,
        confine: impl FnOnce() -> Result<(), seccomp::SeccompError> + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(eventfd()?);
        let (commands, sessions) = channel::<(Session, Interrupt)>();
        let (done, stopped) = channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn({
            let (stop, name) = (Arc::clone(&stop), name.to_owned());
            move || {
                if let Err(error) = confine() {
                    // A device without its filter must not serve; the driver sees a device that is broken.
                    eprintln!("husk-vmm: {name}: {error}");
                    return;
                }
                let mut complaints = 0;
                for (session, interrupt) in sessions {
                    if let Err(error) = backend.serve(session, &stop) {
                        if complaints < COMPLAINTS_MAX {
                            complaints += 1;
                            eprintln!("husk-vmm: {name}: {error}; the driver must reset it");
                        }
                        interrupt.needs_reset();
                        wait_for(&stop);
                    }
                    let _ = stop.read();
                    if done.send(()).is_err() {
                        return;
                    }
                }
            }
        })?;
        Ok(Self { commands: Some(commands), stop, stopped, serving: false, thread: Some(thread) })
    }

    /// Begins a session. The worker must be idle.
    pub fn start(&mut self, session: Session, interrupt: Interrupt) {
        debug_assert!(!self.serving);
        let sent = self.commands.as_ref().is_some_and(|commands| commands.send((session, interrupt.clone())).is_ok());
        if sent {
            self.serving = true;
        } else {
            interrupt.needs_reset();
        }
    }

    /// Ends the session, if there is one, and waits until the device has let go of it.
    pub fn stop(&mut self) {
        if std::mem::take(&mut self.serving) {
            let _ = self.stop.write(1);
            let _ = self.stopped.recv();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for kicks of `queues`, unless there is `more` to do; true when the session is over.
pub(super) fn wait_for_kicks(queues: &[ActiveQueue], stop: &EventFd, more: bool) -> Result<bool, DeviceError> {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let events = queues.iter().map(ActiveQueue::kick).chain([stop]);
    let mut fds: Vec<_> = events.map(|event| PollFd::from_borrowed_fd(descriptor(event), PollFlags::IN)).collect();
    rustix::io::retry_on_intr(|| poll(&mut fds, more.then_some(&now)))?;
    for queue in queues {
        let _ = queue.kick().read();
    }
    Ok(fds.last().is_some_and(|stop| !stop.revents().is_empty()))
}

/// Whether `event` is readable now.
pub(super) fn is_readable(event: &EventFd) -> Result<bool, DeviceError> {
    let mut fds = [PollFd::from_borrowed_fd(descriptor(event), PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now)))? > 0)
}

/// Blocks until `event` is readable.
fn wait_for(event: &EventFd) {
    let mut fds = [PollFd::from_borrowed_fd(descriptor(event), PollFlags::IN)];
    while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
}
