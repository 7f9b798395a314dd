//! Packets to the guest.

use std::io::ErrorKind;
use std::time::Instant;

use super::super::TIMEOUT;
use super::super::packet::{Header, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, op};
use super::{Connection, Flow, State};
use crate::virtio::buffer::Buffer;
use crate::virtio::io as guest_io;

impl Connection {
    /// SHUTDOWN flags that the guest should know of.
    fn shutdown_wanted(&self) -> u32 {
        let send = if self.to_guest == Flow::Ending { SHUTDOWN_SEND } else { 0 };
        let receive = if self.host_gone { SHUTDOWN_RECEIVE } else { 0 };
        (send | receive | self.shutdown_sent) & SHUTDOWN_BOTH
    }

    /// Whether [`next_packet`](Self::next_packet) probably has one.
    pub(in crate::virtio::vsock) fn has_packet(&self) -> bool {
        match self.state {
            State::Handshaking | State::Lingering => false,
            State::Requested => self.due.request,
            State::Established => {
                self.due.credit_update
                    || self.due.credit_request
                    || self.shutdown_wanted() != self.shutdown_sent
                    || (self.to_guest == Flow::Open
                        && self.readable
                        && (self.credit.available() > 0 || !self.asked_for_credit))
            }
        }
    }

    /// Makes the next packet for the guest, data read right into `room`.
    pub(in crate::virtio::vsock) fn next_packet(&mut self, room: &Buffer<'_>, now: Instant) -> Option<(Header, usize)> {
        match self.state {
            State::Handshaking | State::Lingering => return None,
            State::Requested => {
                return std::mem::take(&mut self.due.request).then(|| (self.header(op::REQUEST), 0));
            }
            State::Established => {}
        }
        if let Some(count) = self.read_data(room) {
            let mut header = self.header(op::RW);
            header.len = count;
            self.due.credit_update = false;
            return Some((header, usize::try_from(count).unwrap_or(0)));
        }
        let shutdown = self.shutdown_wanted();
        if shutdown != self.shutdown_sent {
            self.shutdown_sent = shutdown;
            if shutdown == SHUTDOWN_BOTH {
                // The guest answers with RST when its process has read everything, or never.
                self.deadline = Some(now + TIMEOUT);
            }
            return Some((Header { flags: shutdown, ..self.header(op::SHUTDOWN) }, 0));
        }
        if std::mem::take(&mut self.due.credit_request) {
            return Some((self.header(op::CREDIT_REQUEST), 0));
        }
        if std::mem::take(&mut self.due.credit_update) {
            return Some((self.header(op::CREDIT_UPDATE), 0));
        }
        None
    }

    /// Reads as much as guest, buffer and socket allow; `None` when that is nothing.
    fn read_data(&mut self, room: &Buffer<'_>) -> Option<u32> {
        if self.to_guest != Flow::Open || !self.readable {
            return None;
        }
        let available = self.credit.available();
        if available == 0 {
            if !std::mem::replace(&mut self.asked_for_credit, true) {
                self.due.credit_request = true;
            }
            return None;
        }
        let most = room.len().min(usize::try_from(available).unwrap_or(usize::MAX));
        let target = room.clone().split_front(most).ok().filter(|target| !target.is_empty())?;
        match guest_io::read(&self.stream, target.slices()) {
            Ok(0) => {
                self.to_guest = Flow::Ending;
                None
            }
            Ok(count) => {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.credit.add_sent(count);
                Some(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                None
            }
            Err(_) => {
                self.host_gone = true;
                self.to_guest = Flow::Ending;
                None
            }
        }
    }
}
