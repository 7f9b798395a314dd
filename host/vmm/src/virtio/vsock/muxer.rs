//! All connections of a guest: whose packet is it, and who is next to send one.
//!
//! Queues and epoll are the device's business; the muxer can be driven by a test without either.

use std::collections::{HashMap, VecDeque};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::connection::{Connection, Verdict};
use super::packet::{Header, TYPE_STREAM, op};
use super::{CONNECTIONS_MAX, HOST_CID, REPLIES_MAX};
use crate::virtio::buffer::Buffer;

/// Host ports are given out from here on, so that they look unlike any guest port in a log.
const FIRST_HOST_PORT: u32 = 1 << 30;
const LAST_HOST_PORT: u32 = (1 << 31) - 1;

/// The connections, by host port.
#[derive(Debug)]
pub(super) struct Muxer {
    guest_cid: u32,
    connections: HashMap<u32, Connection>,
    next_host_port: u32,
    /// Connections that have something for the guest, each once; served in turn.
    line: VecDeque<u32>,
    /// RST packets for connections that are gone or never were. They go first.
    replies: VecDeque<Header>,
}

impl Muxer {
    pub(super) fn new(guest_cid: u32) -> Self {
        Self {
            guest_cid,
            connections: HashMap::new(),
            next_host_port: FIRST_HOST_PORT,
            line: VecDeque::new(),
            replies: VecDeque::new(),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// A client has connected. `register` gets its socket watched under the port it is given; when there are too many
    /// connections or that fails, the client is turned away.
    pub(super) fn add(&mut self, stream: UnixStream, now: Instant, register: impl FnOnce(&UnixStream, u32) -> bool) {
        if self.connections.len() >= CONNECTIONS_MAX {
            return;
        }
        let mut port = self.next_host_port;
        while self.connections.contains_key(&port) {
            port = following(port);
        }
        self.next_host_port = following(port);
        let connection = Connection::new(stream, port, self.guest_cid, now);
        if register(connection.stream(), port) {
            self.connections.insert(port, connection);
        }
    }

    /// A client's socket has become ready for something.
    pub(super) fn on_host_event(&mut self, port: u32, readable: bool, writable: bool, gone: bool, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&port) {
            let verdict = connection.on_host_event(readable, writable, gone, now);
            self.conclude(port, verdict);
        }
    }

    /// A packet from the guest. `payload` may be longer than the header says, not shorter.
    pub(super) fn on_packet(&mut self, header: &Header, mut payload: Buffer<'_>, now: Instant) {
        if header.src_cid != u64::from(self.guest_cid) || header.dst_cid != HOST_CID {
            // It pretends to come from or go to somebody else.
            return;
        }
        let length = usize::try_from(header.len).unwrap_or(usize::MAX);
        let Ok(payload) = payload.split_front(length) else {
            // It promises more than it brings: there is no telling what was meant.
            self.reply_reset(header);
            self.remove(header.dst_port);
            return;
        };
        let known = self.connections.get_mut(&header.dst_port);
        match known.filter(|known| header.kind == TYPE_STREAM && known.guest_port() == header.src_port) {
            Some(connection) => {
                let verdict = connection.on_packet(header, payload, now);
                self.conclude(header.dst_port, verdict);
            }
            None => self.reply_reset(header),
        }
    }

    fn conclude(&mut self, port: u32, verdict: Verdict) {
        let Some(connection) = self.connections.get_mut(&port) else { return };
        match verdict {
            Verdict::Keep => {
                if connection.has_packet() && !std::mem::replace(&mut connection.in_line, true) {
                    self.line.push_back(port);
                }
            }
            Verdict::ResetAndKeep => self.replies.push_back(connection.reset_packet()),
            Verdict::Reset => {
                self.replies.push_back(connection.reset_packet());
                self.remove(port);
            }
            Verdict::Remove => self.remove(port),
        }
    }

    fn remove(&mut self, port: u32) {
        // Its place in the line is skipped when it comes up; ports are not used again for a billion connections.
        self.connections.remove(&port);
    }

    fn reply_reset(&mut self, header: &Header) {
        if header.op != op::RST {
            self.replies.push_back(header.reset());
        }
    }

    /// Too many resets wait for the guest's buffers: take no packets from it until it has fetched some. Each packet
    /// and each client adds at most one, so the number of waiting ones is bounded.
    pub(super) fn is_backed_up(&self) -> bool {
        self.replies.len() >= REPLIES_MAX
    }

    /// Whether there probably is something for the guest.
    pub(super) fn has_packet(&self) -> bool {
        !self.replies.is_empty() || !self.line.is_empty()
    }

    /// The next packet for the guest, its payload already in `room`, with the payload's length.
    pub(super) fn next_packet(&mut self, room: &Buffer<'_>, now: Instant) -> Option<(Header, usize)> {
        if let Some(reply) = self.replies.pop_front() {
            return Some((reply, 0));
        }
        // Each at most once: with a `room` of nothing, who has only data to send stays in line.
        for _ in 0..self.line.len() {
            let port = self.line.pop_front()?;
            let Some(connection) = self.connections.get_mut(&port) else { continue };
            connection.in_line = false;
            let packet = connection.next_packet(room, now);
            // To the end of the line when there is more.
            self.conclude(port, Verdict::Keep);
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    /// Ends what has waited too long; returns when to look again.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let late = |connection: &Connection| connection.deadline().is_some_and(|deadline| deadline <= now);
        let expired: Vec<u32> = self.connections.iter().filter(|(_, c)| late(c)).map(|(port, _)| *port).collect();
        for port in expired {
            let verdict = match self.connections.get(&port) {
                // The guest never heard of it.
                Some(connection) if connection.is_unknown_to_guest() => Verdict::Remove,
                _ => Verdict::Reset,
            };
            self.conclude(port, verdict);
        }
        self.connections.values().filter_map(Connection::deadline).min()
    }

    /// Whether bytes from the guest still wait for a host process.
    pub(super) fn has_buffered(&self) -> bool {
        self.connections.values().any(Connection::has_buffered)
    }
}

fn following(port: u32) -> u32 {
    if port >= LAST_HOST_PORT { FIRST_HOST_PORT } else { port + 1 }
}
