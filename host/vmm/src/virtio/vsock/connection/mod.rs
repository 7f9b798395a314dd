//! One connection: a unix socket on the host's side, packets on the guest's.
//!
//! ```text
//! Handshaking --CONNECT line--> Requested --RESPONSE--> Established --guest closed or reset--> Lingering
//! ```
//!
//! Each direction ends on its own. Host to guest: the socket's end of file becomes SHUTDOWN(send). Guest to host:
//! SHUTDOWN(send) becomes `shutdown(SHUT_WR)`, after everything before it was written. The guest closes with
//! SHUTDOWN(both), which we answer with RST at once; what it sent before still reaches the host (Lingering).
//!
//! Socket readiness is edge-triggered: `readable` and `writable` are set by epoll and cleared by EAGAIN only, so an
//! idle or stalled connection costs no wake-ups.

mod from_guest;
mod host;
mod to_guest;

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::credit::Credit;
use super::packet::{Header, TYPE_STREAM, op};
use super::{HOST_CID, TIMEOUT};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The client has not said yet where it wants to.
    Handshaking,
    /// The guest has been or will be asked.
    Requested,
    Established,
    /// Over for the guest; what it sent is still being written to the host.
    Lingering,
}

/// A direction of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// Its source has ended it; what was sent before is on its way.
    Ending,
    Closed,
}

/// What becomes of the connection after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Forget it.
    Remove,
    /// Tell the guest RST, and forget it.
    Reset,
    /// Tell the guest RST; it lingers for the host.
    ResetAndKeep,
}

/// Packets that the guest is owed apart from data.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    request: bool,
    credit_request: bool,
    credit_update: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    host_port: u32,
    guest_port: u32,
    guest_cid: u64,
    state: State,
    to_guest: Flow,
    to_host: Flow,
    /// The socket's other end is closed altogether.
    host_gone: bool,
    readable: bool,
    writable: bool,
    credit: Credit,
    /// A credit request is out and not answered.
    asked_for_credit: bool,
    /// From the guest, not yet written to the host.
    buffer: VecDeque<u8>,
    due: Due,
    /// SHUTDOWN flags that the guest has been sent, and has sent.
    shutdown_sent: u32,
    shutdown_received: u32,
    /// When waiting for the other side ends.
    deadline: Option<Instant>,
    /// It stands in the muxer's line of connections with something for the guest.
    pub(super) in_line: bool,
}

impl Connection {
    /// A client has connected; it has until the deadline to say where to.
    pub(super) fn new(stream: UnixStream, host_port: u32, guest_cid: u32, now: Instant) -> Self {
        Self {
            stream,
            host_port,
            guest_port: 0,
            guest_cid: u64::from(guest_cid),
            state: State::Handshaking,
            to_guest: Flow::Open,
            to_host: Flow::Open,
            host_gone: false,
            readable: true,
            writable: true,
            credit: Credit::default(),
            asked_for_credit: false,
            buffer: VecDeque::new(),
            due: Due::default(),
            shutdown_sent: 0,
            shutdown_received: 0,
            deadline: Some(now + TIMEOUT),
            in_line: false,
        }
    }

    pub(super) fn guest_port(&self) -> u32 {
        self.guest_port
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The guest has not been told of it, or has already been told RST.
    pub(super) fn is_unknown_to_guest(&self) -> bool {
        match self.state {
            State::Handshaking | State::Lingering => true,
            State::Requested => self.due.request,
            State::Established => false,
        }
    }

    pub(super) fn has_buffered(&self) -> bool {
        !self.buffer.is_empty()
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    fn header(&mut self, op: u16) -> Header {
        let (buf_alloc, fwd_cnt) = self.credit.announce();
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: self.host_port,
            dst_port: self.guest_port,
            kind: TYPE_STREAM,
            op,
            buf_alloc,
            fwd_cnt,
            ..Header::default()
        }
    }

    /// RST for this connection, of which the guest may or may not know.
    pub(super) fn reset_packet(&mut self) -> Header {
        Header { buf_alloc: 0, fwd_cnt: 0, ..self.header(op::RST) }
    }
}
