//! The loop between tap and queues.

use std::collections::VecDeque;
use std::io::ErrorKind;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

use super::{FEATURE_MRG_RXBUF, FRAME_MAX, HEADER_LEN, NUM_BUFFERS, Tap};
use crate::event::descriptor;
use crate::memory::GuestRam;
use crate::virtio::buffer::Buffer;
use crate::virtio::queue::ActiveQueue;
use crate::virtio::worker::{Backend, DeviceError, Session};

/// Frames in one direction before the other one and the order to stop are looked at.
const BATCH: usize = 64;

/// A network device.
///
/// Frames that cannot be delivered are lost, as on any cable; what a guest writes into its queues ends the device only
/// where the rings themselves are broken.
#[derive(Debug)]
pub struct Net {
    tap: Tap,
}

impl Net {
    #[must_use]
    pub fn new(tap: Tap) -> Self {
        Self { tap }
    }
}

impl Backend for Net {
    fn serve(&mut self, session: Session, stop: &EventFd) -> Result<(), DeviceError> {
        let Session { memory, queues, features } = session;
        let mut queues = queues.into_iter();
        // The transport starts a session with all queues of the spec.
        let (Some(rx), Some(tx)) = (queues.next(), queues.next()) else { return Ok(()) };
        self.tap.set_offloads(features)?;
        Running::new(&self.tap, &memory, rx, tx, features & FEATURE_MRG_RXBUF != 0).run(stop)
    }
}

/// A session.
pub(super) struct Running<'a> {
    tap: &'a Tap,
    memory: &'a GuestRam,
    rx: ActiveQueue,
    tx: ActiveQueue,
    /// A frame may lie in several chains.
    mergeable: bool,
    /// Chains taken from the receive queue and not used yet. They stay ours, so that a kick always means a new one.
    claimed: VecDeque<(u16, Buffer<'a>)>,
    /// A frame, and how much of it is one that waits for chains.
    frame: Vec<u8>,
    waiting: usize,
    /// The guest has no chains for us; its next kick tells.
    starved: bool,
    /// There may be more to do at once.
    tap_pending: bool,
    tx_pending: bool,
    /// The tap takes no frame for now.
    tx_blocked: bool,
    /// The tap's interface was removed: what is sent is lost, and nothing comes any more.
    gone: bool,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Delivery {
    Done,
    /// There are too few chains.
    Starved,
    /// The guest offers chains that hold nothing, without end perhaps: others are looked at first.
    Later,
}

impl<'a> Running<'a> {
    pub(super) fn new(tap: &'a Tap, memory: &'a GuestRam, rx: ActiveQueue, tx: ActiveQueue, mergeable: bool) -> Self {
        Self {
            tap,
            memory,
            rx,
            tx,
            mergeable,
            claimed: VecDeque::new(),
            frame: vec![0; FRAME_MAX],
            waiting: 0,
            starved: false,
            // Also at the start: the driver may have kicked before DRIVER_OK took effect.
            tap_pending: true,
            tx_pending: true,
            tx_blocked: false,
            gone: false,
        }
    }

    fn run(mut self, stop: &EventFd) -> Result<(), DeviceError> {
        loop {
            if self.tx_pending {
                self.transmit()?;
            }
            if self.tap_pending && !self.starved {
                self.receive()?;
            }
            if self.wait(stop)? {
                return Ok(());
            }
        }
    }

    /// Waits for something to do; true when the session is over.
    fn wait(&mut self, stop: &EventFd) -> Result<bool, DeviceError> {
        let busy = self.tx_pending || (self.tap_pending && !self.starved);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // While the guest has no room, the tap's queue holds what comes, and drops what is too much.
        let mut tap_flags = PollFlags::empty();
        tap_flags.set(PollFlags::IN, !self.starved);
        tap_flags.set(PollFlags::OUT, self.tx_blocked);
        let mut fds = [
            PollFd::from_borrowed_fd(descriptor(stop), PollFlags::IN),
            PollFd::from_borrowed_fd(descriptor(self.tx.kick()), PollFlags::IN),
            PollFd::from_borrowed_fd(descriptor(self.rx.kick()), PollFlags::IN),
            PollFd::new(self.tap, tap_flags),
        ];
        // The error of a tap without an interface is reported whether asked for or not.
        let count = if self.gone { 3 } else { 4 };
        let watched = fds.get_mut(..count).unwrap_or_default();
        rustix::io::retry_on_intr(|| poll(watched, busy.then_some(&now)))?;
        let [stopped, tx, rx, tap] = fds.map(|fd| fd.revents());
        if !tx.is_empty() {
            let _ = self.tx.kick().read();
            self.tx_pending = !self.tx_blocked;
        }
        if !rx.is_empty() {
            let _ = self.rx.kick().read();
            self.starved = false;
            self.tap_pending = true;
        }
        self.gone |= tap.contains(PollFlags::ERR);
        self.tap_pending |= tap.contains(PollFlags::IN);
        if self.tx_blocked && (self.gone || tap.contains(PollFlags::OUT)) {
            self.tx_blocked = false;
            self.tx_pending = true;
        }
        Ok(!stopped.is_empty())
    }

    /// Sends what the guest has for us.
    pub(super) fn transmit(&mut self) -> Result<(), DeviceError> {
        self.tx.disable_kicks()?;
        for _ in 0..BATCH {
            let Some(chain) = self.tx.pop(self.memory)? else {
                self.tx.notify()?;
                self.tx_pending = self.tx.enable_kicks()?;
                return Ok(());
            };
            if let Ok(buffers) = &chain.buffers
                && (HEADER_LEN..=FRAME_MAX).contains(&buffers.readable.len())
            {
                let sent = self.tap.send(buffers.readable.slices());
                if sent.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) && !self.gone {
                    self.tx.undo_pop();
                    self.tx_pending = false;
                    self.tx_blocked = true;
                    break;
                }
                // With a header that the kernel refuses (EINVAL), or an interface that is down, the frame is lost.
            }
            self.tx.push_used(chain.head, 0)?;
        }
        self.tx.notify()?;
        Ok(())
    }

    /// Gives the guest what has come.
    pub(super) fn receive(&mut self) -> Result<(), DeviceError> {
        self.rx.disable_kicks()?;
        for _ in 0..BATCH {
            if self.waiting == 0 {
                match self.tap.receive(&mut self.frame) {
                    Ok(length) if length >= HEADER_LEN => self.waiting = length,
                    // No frame; a tap never gives one.
                    Ok(_) => continue,
                    Err(error) => {
                        // EFAULT: a frame that was too long is gone, and the next one is due.
                        self.tap_pending = error.raw_os_error() == Some(libc::EFAULT);
                        self.gone |= error.raw_os_error() == Some(libc::EBADFD);
                        break;
                    }
                }
            }
            match self.deliver()? {
                Delivery::Done => {}
                Delivery::Later => break,
                Delivery::Starved => {
                    if !self.rx.enable_kicks()? {
                        self.starved = true;
                        break;
                    }
                }
            }
        }
        self.rx.notify()?;
        Ok(())
    }

    /// Puts the waiting frame into the guest's chains, or drops it when they can never hold it.
    fn deliver(&mut self) -> Result<Delivery, DeviceError> {
        let length = self.waiting;
        let most = if self.mergeable { usize::from(self.rx.size()) } else { 1 };
        let mut room: usize = self.claimed.iter().map(|(_, buffer)| buffer.len()).sum();
        let mut useless = 0;
        while room < length && self.claimed.len() < most {
            let Some(chain) = self.rx.pop(self.memory)? else { return Ok(Delivery::Starved) };
            match chain.buffers {
                Ok(buffers) if !buffers.writable.is_empty() => {
                    room = room.saturating_add(buffers.writable.len());
                    self.claimed.push_back((chain.head, buffers.writable));
                }
                // Nothing fits in there.
                _ => {
                    self.rx.push_used(chain.head, 0)?;
                    useless += 1;
                    if useless == BATCH {
                        return Ok(Delivery::Later);
                    }
                }
            }
        }
        self.waiting = 0;
        if room >= length {
            self.fill(length)?;
        }
        Ok(Delivery::Done)
    }

    /// Copies the frame into as many claimed chains as it takes.
    fn fill(&mut self, length: usize) -> Result<(), DeviceError> {
        let mut left = length;
        let taken = self.claimed.iter().take_while(|(_, buffer)| {
            let needed = left > 0;
            left = left.saturating_sub(buffer.len());
            needed
        });
        let count = taken.count();
        let number = u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes();
        if let Some(field) = self.frame.get_mut(NUM_BUFFERS) {
            field.copy_from_slice(&number);
        }
        let mut rest = self.frame.get(..length).unwrap_or_default();
        let mut filled = Vec::with_capacity(count);
        for (head, buffer) in self.claimed.drain(..count) {
            let copied = buffer.copy_from(rest);
            rest = rest.get(copied..).unwrap_or_default();
            filled.push((head, copied));
        }
        // A driver that sees the first one takes all that `num_buffers` says.
        Ok(self.rx.push_used_together(&filled)?)
    }
}
