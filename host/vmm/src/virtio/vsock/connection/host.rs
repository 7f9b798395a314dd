//! The host's side: the socket, the client's first line, and what is written to it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::time::Instant;

use rustix::net::{RecvFlags, recv};

use super::super::TIMEOUT;
use super::super::handshake::{self, LINE_MAX, Line};
use super::{Connection, Flow, State, Verdict};

impl Connection {
    /// The socket's readiness has changed.
    pub(in crate::virtio::vsock) fn on_host_event(
        &mut self,
        readable: bool,
        writable: bool,
        gone: bool,
        now: Instant,
    ) -> Verdict {
        self.readable |= readable || gone;
        self.writable |= writable;
        self.host_gone |= gone;
        match self.state {
            State::Handshaking => self.handshake(now),
            State::Requested if self.host_gone => Verdict::Reset,
            State::Requested => Verdict::Keep,
            State::Established | State::Lingering => self.flush(),
        }
    }

    /// Reads the client's line as far as it has arrived, and not a byte beyond it.
    fn handshake(&mut self, now: Instant) -> Verdict {
        let mut bytes = [0; LINE_MAX];
        let arrived = match recv(&self.stream, &mut bytes[..], RecvFlags::PEEK) {
            Ok((0, _)) => return Verdict::Remove,
            Ok((count, _)) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Verdict::Keep,
            Err(_) => return Verdict::Remove,
        };
        match handshake::parse(bytes.get(..arrived).unwrap_or_default()) {
            // More bytes raise the next edge.
            Line::Incomplete if !self.host_gone => Verdict::Keep,
            Line::Incomplete | Line::Invalid => Verdict::Remove,
            Line::Connect { port, length } => {
                let line = bytes.get_mut(..length).unwrap_or_default();
                if !matches!(recv(&self.stream, line, RecvFlags::empty()), Ok((count, _)) if count == length) {
                    return Verdict::Remove;
                }
                self.guest_port = port;
                self.state = State::Requested;
                self.due.request = true;
                self.deadline = Some(now + TIMEOUT);
                Verdict::Keep
            }
        }
    }

    /// Writes to the host what is buffered, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Verdict {
        while self.writable && !self.buffer.is_empty() && !self.host_gone {
            let (front, back) = self.buffer.as_slices();
            match (&self.stream).write_vectored(&[IoSlice::new(front), IoSlice::new(back)]) {
                Ok(count) => {
                    self.buffer.drain(..count.min(self.buffer.len()));
                    self.forwarded(count);
                }
                Err(error) => self.on_write_error(&error),
            }
        }
        if self.host_gone {
            let discarded = self.buffer.len();
            self.buffer.clear();
            self.forwarded(discarded);
        }
        if self.buffer.is_empty() {
            // A quarter of a MiB is much for an idle connection.
            self.buffer = VecDeque::new();
            if self.to_host == Flow::Ending {
                // The client sees the end of the stream; that it may be gone does not matter.
                let _ = self.stream.shutdown(Shutdown::Write);
                self.to_host = Flow::Closed;
            }
            if self.state == State::Lingering {
                return Verdict::Remove;
            }
        }
        Verdict::Keep
    }

    pub(super) fn on_write_error(&mut self, error: &io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock => self.writable = false,
            ErrorKind::Interrupted => {}
            _ => self.host_gone = true,
        }
    }

    pub(super) fn forwarded(&mut self, bytes: usize) {
        // The buffer's size bounds it.
        self.credit.add_forwarded(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.credit.is_update_due() {
            self.due.credit_update = true;
        }
    }
}
