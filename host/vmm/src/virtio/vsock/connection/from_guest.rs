//! Packets from the guest.

use std::io::Write;
use std::net::Shutdown;
use std::time::Instant;

use super::super::packet::{Header, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, op};
use super::super::{BUFFER, TIMEOUT};
use super::{Connection, Due, Flow, State, Verdict};
use crate::virtio::buffer::Buffer;
use crate::virtio::io as guest_io;

impl Connection {
    /// A packet of this connection; `payload` has the length that the header says.
    pub(in crate::virtio::vsock) fn on_packet(
        &mut self,
        header: &Header,
        payload: Buffer<'_>,
        now: Instant,
    ) -> Verdict {
        self.credit.update(header.buf_alloc, header.fwd_cnt);
        if self.credit.available() > 0 {
            self.asked_for_credit = false;
        }
        match (self.state, header.op) {
            (State::Requested, op::RESPONSE) => self.accept(),
            // Refused: the client sees its socket closed without an answer.
            (State::Requested, op::RST) => Verdict::Remove,
            (State::Established, op::RST) => self.linger(now),
            (State::Established, op::RW) => self.on_data(payload),
            (State::Established, op::CREDIT_UPDATE) => Verdict::Keep,
            (State::Established, op::CREDIT_REQUEST) => {
                self.due.credit_update = true;
                Verdict::Keep
            }
            (State::Established, op::SHUTDOWN) => self.on_shutdown(header.flags, now),
            // The guest's last words after its RST or close, which it may have sent before ours arrived.
            (State::Lingering, _) => Verdict::Keep,
            // It breaks the protocol, or speaks of a connection it does not know yet.
            (State::Handshaking | State::Requested | State::Established, _) => Verdict::Reset,
        }
    }

    fn accept(&mut self) -> Verdict {
        let answer = format!("OK {}\n", self.host_port);
        // A fresh socket's buffer takes these few bytes, or the client is gone.
        if !matches!((&self.stream).write(answer.as_bytes()), Ok(count) if count == answer.len()) {
            return Verdict::Reset;
        }
        self.state = State::Established;
        self.deadline = None;
        // Data may have come right behind the CONNECT line, before this edge.
        self.readable = true;
        Verdict::Keep
    }

    fn on_data(&mut self, mut payload: Buffer<'_>) -> Verdict {
        if self.to_host != Flow::Open {
            return Verdict::Reset;
        }
        // Straight to the socket when nothing is before it.
        while self.writable && self.buffer.is_empty() && !payload.is_empty() && !self.host_gone {
            match guest_io::send(&self.stream, payload.slices()) {
                Ok(count) => {
                    if payload.split_front(count).is_err() {
                        return Verdict::Reset;
                    }
                    self.forwarded(count);
                }
                Err(error) => self.on_write_error(&error),
            }
        }
        if self.host_gone {
            self.forwarded(payload.len());
            return Verdict::Keep;
        }
        let room = usize::try_from(BUFFER).unwrap_or(0).saturating_sub(self.buffer.len());
        if payload.len() > room {
            // More than its credit allows.
            return Verdict::Reset;
        }
        for slice in payload.slices() {
            let mut bytes = vec![0; slice.len()];
            slice.copy_to(&mut bytes);
            self.buffer.extend(bytes);
        }
        Verdict::Keep
    }

    fn on_shutdown(&mut self, flags: u32, now: Instant) -> Verdict {
        self.shutdown_received |= flags & SHUTDOWN_BOTH;
        if self.shutdown_received == SHUTDOWN_BOTH {
            // Closed. Linux waits for RST before it forgets the socket.
            return match self.linger(now) {
                Verdict::Remove => Verdict::Reset,
                _ => Verdict::ResetAndKeep,
            };
        }
        if self.shutdown_received & SHUTDOWN_SEND != 0 && self.to_host == Flow::Open {
            self.to_host = Flow::Ending;
        }
        if self.shutdown_received & SHUTDOWN_RECEIVE != 0 && self.to_guest != Flow::Closed {
            // A client that writes on gets EPIPE.
            let _ = self.stream.shutdown(Shutdown::Read);
            self.to_guest = Flow::Closed;
        }
        self.flush()
    }

    /// The guest is done with it: write what is left and go.
    fn linger(&mut self, now: Instant) -> Verdict {
        self.state = State::Lingering;
        self.to_guest = Flow::Closed;
        self.to_host = Flow::Ending;
        self.due = Due::default();
        self.deadline = Some(now + TIMEOUT);
        self.flush()
    }
}
