//! The loop between queues, sockets and muxer.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::net::{SocketFlags, accept_with, sockopt};
use vmm_sys_util::eventfd::EventFd;

use super::muxer::Muxer;
use super::packet::{HEADER_LEN, Header};
use super::{BATCH, FIRST_GUEST_CID, FLUSH_TIME};
use crate::event::descriptor;
use crate::memory::GuestRam;
use crate::virtio::buffer::{Buffers, ChainError};
use crate::virtio::queue::ActiveQueue;
use crate::virtio::state::DeviceSpec;
use crate::virtio::worker::{Backend, DeviceError, Session};

/// Epoll tokens; a connection's is its host port, which is above all of these.
const TOKEN_STOP: u64 = 0;
const TOKEN_RX: u64 = 1;
const TOKEN_TX: u64 = 2;
const TOKEN_LISTENER: u64 = 3;
/// Events taken from epoll at a time.
const EVENTS: usize = 64;
/// A listener that cannot accept (no descriptors left) is left alone for so long.
const LISTENER_REST: Duration = Duration::from_secs(1);

/// Why a vsock device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    #[error("guest context id {0} is reserved: use {FIRST_GUEST_CID} or above")]
    Cid(u32),
    #[error("the vsock descriptor is not a listening stream socket")]
    NotListening,
    #[error("cannot prepare the vsock listener: {0}")]
    Listener(io::Error),
}

/// How many connections there are, readable from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct ConnectionCount(Arc<AtomicU32>);

impl ConnectionCount {
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, count: usize) {
        self.0.store(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// The vsock device. Without a session clients wait in the listener's backlog.
#[derive(Debug)]
pub struct Vsock {
    guest_cid: u32,
    listener: OwnedFd,
    count: ConnectionCount,
}

impl Vsock {
    pub fn new(guest_cid: u32, listener: OwnedFd) -> Result<Self, VsockError> {
        if !(FIRST_GUEST_CID..u32::MAX).contains(&guest_cid) {
            return Err(VsockError::Cid(guest_cid));
        }
        if !sockopt::socket_acceptconn(&listener).unwrap_or(false) {
            return Err(VsockError::NotListening);
        }
        // A client may vanish between epoll and accept.
        rustix::io::ioctl_fionbio(&listener, true).map_err(|errno| VsockError::Listener(errno.into()))?;
        Ok(Self { guest_cid, listener, count: ConnectionCount::default() })
    }

    #[must_use]
    pub fn spec(&self) -> DeviceSpec {
        super::spec(self.guest_cid)
    }

    #[must_use]
    pub fn connection_count(&self) -> ConnectionCount {
        self.count.clone()
    }
}

impl Backend for Vsock {
    fn serve(&mut self, session: Session, stop: &EventFd) -> Result<(), DeviceError> {
        let Session { memory, queues, .. } = session;
        let mut queues = queues.into_iter();
        // The transport starts a session with all queues of the spec; the event queue is for migration only.
        let (Some(rx), Some(tx)) = (queues.next(), queues.next()) else { return Ok(()) };
        let result = Running::new(self, &memory, rx, tx, stop).and_then(|mut running| running.run());
        self.count.set(0);
        result
    }
}

/// A session.
struct Running<'a> {
    device: &'a Vsock,
    memory: &'a GuestRam,
    rx: ActiveQueue,
    tx: ActiveQueue,
    stop: &'a EventFd,
    epoll: OwnedFd,
    muxer: Muxer,
    /// The guest has packets for us that were not looked at yet.
    tx_pending: bool,
    /// The guest has no buffers for us; its next kick tells.
    rx_starved: bool,
    /// When to watch the listener again.
    listener_rests_until: Option<Instant>,
    stopping: bool,
}

impl<'a> Running<'a> {
    fn new(
        device: &'a Vsock,
        memory: &'a GuestRam,
        rx: ActiveQueue,
        tx: ActiveQueue,
        stop: &'a EventFd,
    ) -> Result<Self, DeviceError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let add = |fd, token, flags| epoll::add(&epoll, fd, epoll::EventData::new_u64(token), flags);
        add(descriptor(stop), TOKEN_STOP, epoll::EventFlags::IN)?;
        add(descriptor(rx.kick()), TOKEN_RX, epoll::EventFlags::IN)?;
        add(descriptor(tx.kick()), TOKEN_TX, epoll::EventFlags::IN)?;
        epoll::add(&epoll, &device.listener, epoll::EventData::new_u64(TOKEN_LISTENER), epoll::EventFlags::IN)?;
        Ok(Self {
            device,
            memory,
            rx,
            tx,
            stop,
            epoll,
            muxer: Muxer::new(device.guest_cid),
            // Both queues may have been filled before DRIVER_OK took effect.
            tx_pending: true,
            rx_starved: false,
            listener_rests_until: None,
            stopping: false,
        })
    }

    fn run(&mut self) -> Result<(), DeviceError> {
        loop {
            let now = Instant::now();
            let mut wake = self.muxer.expire(now);
            if let Some(until) = self.listener_rests_until {
                if until <= now {
                    self.watch_listener(true)?;
                    self.listener_rests_until = None;
                } else {
                    wake = Some(wake.map_or(until, |wake| wake.min(until)));
                }
            }
            let timeout = if self.is_busy() { Some(Duration::ZERO) } else { wake.map(|wake| wake - now) };
            self.wait(timeout)?;
            // What the guest sent last, such as a container's final output, is still taken when stopping.
            self.take_from_guest()?;
            if self.stopping {
                return self.flush();
            }
            self.give_to_guest()?;
            self.device.count.set(self.muxer.connections());
        }
    }

    /// Whether there is work that no event will announce.
    fn is_busy(&self) -> bool {
        (self.tx_pending && !self.muxer.is_backed_up()) || (!self.rx_starved && self.muxer.has_packet())
    }

    /// Waits for events and hands them on.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), DeviceError> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            match token {
                TOKEN_STOP => self.stopping = true,
                TOKEN_RX => {
                    let _ = self.rx.kick().read();
                    self.rx_starved = false;
                }
                TOKEN_TX => {
                    let _ = self.tx.kick().read();
                    self.tx_pending = true;
                }
                TOKEN_LISTENER => self.accept()?,
                port => {
                    let readable = flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP);
                    let writable = flags.contains(epoll::EventFlags::OUT);
                    let gone = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
                    if let Ok(port) = u32::try_from(port) {
                        self.muxer.on_host_event(port, readable, writable, gone, Instant::now());
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes clients from the listener.
    fn accept(&mut self) -> Result<(), DeviceError> {
        for _ in 0..BATCH {
            match accept_with(&self.device.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    let epoll = &self.epoll;
                    self.muxer.add(UnixStream::from(socket), Instant::now(), |stream, port| {
                        use epoll::EventFlags as E;
                        let data = epoll::EventData::new_u64(u64::from(port));
                        epoll::add(epoll, stream, data, E::IN | E::OUT | E::RDHUP | E::ET).is_ok()
                    });
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                // No descriptors or memory: the client stays in the backlog, we do not spin on it.
                Err(_) => {
                    self.listener_rests_until = Some(Instant::now() + LISTENER_REST);
                    return self.watch_listener(false);
                }
            }
        }
        Ok(())
    }

    fn watch_listener(&self, watch: bool) -> Result<(), DeviceError> {
        let flags = if watch { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        let data = epoll::EventData::new_u64(TOKEN_LISTENER);
        Ok(epoll::modify(&self.epoll, &self.device.listener, data, flags)?)
    }

    /// Packets from the guest.
    fn take_from_guest(&mut self) -> Result<(), DeviceError> {
        if !self.tx_pending {
            return Ok(());
        }
        self.tx.disable_kicks()?;
        for _ in 0..BATCH {
            if self.muxer.is_backed_up() {
                break;
            }
            let Some(chain) = self.tx.pop(self.memory)? else {
                self.tx_pending = self.tx.enable_kicks()?;
                break;
            };
            self.handle_packet(chain.buffers);
            self.tx.push_used(chain.head, 0)?;
        }
        Ok(self.tx.notify()?)
    }

    /// A chain without a whole header is given back without an answer: nobody could be told.
    fn handle_packet(&mut self, buffers: Result<Buffers<'_>, ChainError>) {
        let parsed = buffers.and_then(|buffers| {
            let mut readable = buffers.readable;
            let header = Header::parse(&readable.read::<HEADER_LEN>()?);
            Ok((header, readable))
        });
        if let Ok((header, payload)) = parsed {
            self.muxer.on_packet(&header, payload, Instant::now());
        }
    }

    /// Packets for the guest.
    fn give_to_guest(&mut self) -> Result<(), DeviceError> {
        if self.rx_starved || !self.muxer.has_packet() {
            return Ok(());
        }
        self.rx.disable_kicks()?;
        for _ in 0..BATCH {
            if !self.muxer.has_packet() {
                break;
            }
            let Some(chain) = self.rx.pop(self.memory)? else {
                self.rx_starved = !self.rx.enable_kicks()?;
                break;
            };
            let head = chain.head;
            match self.fill(chain.buffers) {
                Filled::Packet(written) => self.rx.push_used(head, written)?,
                Filled::Unusable => self.rx.push_used(head, 0)?,
                Filled::Nothing => self.rx.undo_pop(),
            }
        }
        Ok(self.rx.notify()?)
    }

    fn fill(&mut self, buffers: Result<Buffers<'_>, ChainError>) -> Filled {
        let split = buffers.and_then(|buffers| {
            let mut room = buffers.writable;
            let header = room.split_front(HEADER_LEN)?;
            Ok((header, room))
        });
        let Ok((header_room, room)) = split else { return Filled::Unusable };
        match self.muxer.next_packet(&room, Instant::now()) {
            Some((header, length)) => {
                header_room.copy_from(&header.to_bytes());
                Filled::Packet(HEADER_LEN + length)
            }
            // There is data, but the guest's buffer ends behind the header.
            None if room.is_empty() && self.muxer.has_packet() => Filled::Unusable,
            None => Filled::Nothing,
        }
    }

    /// At the end: lets host processes read what the guest has sent, for a moment.
    fn flush(&mut self) -> Result<(), DeviceError> {
        // Only clients' sockets are of interest now; stop would wake us again and again.
        for event in [self.stop, self.rx.kick(), self.tx.kick()] {
            epoll::delete(&self.epoll, descriptor(event))?;
        }
        epoll::delete(&self.epoll, &self.device.listener)?;
        let end = Instant::now() + FLUSH_TIME;
        while self.muxer.has_buffered() {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            self.wait(Some(rest))?;
        }
        Ok(())
    }
}

/// What became of a receive buffer.
enum Filled {
    /// It holds a packet of this many bytes.
    Packet(usize),
    /// Too short for a header or for any data; the guest gets it back empty.
    Unusable,
    /// There was nothing to put into it.
    Nothing,
}
