//! The muxer with real sockets, and the device with real queues; the test plays the guest.

mod closing;
mod device;
mod misuse;
mod streams;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::muxer::Muxer;
use super::packet::{HEADER_LEN, Header, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM, op};
use super::*;
use crate::event::eventfd;
use crate::memory::GuestRam;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::testing::{Ring, buffer, ram, read};
use crate::virtio::worker::{Backend, Session};

const CID: u32 = 3;
const GUEST_PORT: u32 = 1024;
/// The guest's receive window in these tests.
const WINDOW: u32 = 64 * 1024;
const RX: u64 = 0x10_0000;
const TX: u64 = 0x20_0000;

struct Guest {
    ram: Arc<GuestRam>,
    muxer: Muxer,
    next_port: Option<u32>,
    fwd_cnt: u32,
}

impl Guest {
    fn new() -> Self {
        Self { ram: ram(), muxer: Muxer::new(CID), next_port: None, fwd_cnt: 0 }
    }

    /// A client connects; returns its end of the socket.
    fn client(&mut self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let port = &mut self.next_port;
        self.muxer.add(theirs, Instant::now(), |_, given| {
            *port = Some(given);
            true
        });
        ours
    }

    fn port(&self) -> u32 {
        self.next_port.unwrap()
    }

    /// Epoll tells of the client.
    fn event(&mut self, gone: bool) {
        let port = self.port();
        self.muxer.on_host_event(port, true, true, gone, Instant::now());
    }

    /// The next packet for the guest, payload in up to `room` bytes of two descriptors.
    fn receive_into(&mut self, room: usize) -> Option<(Header, Vec<u8>)> {
        let first = room / 3;
        let target = buffer(&self.ram, &[(RX, first), (RX + 0x1_0000, room - first)]);
        let (header, length) = self.muxer.next_packet(&target, Instant::now())?;
        let mut payload = read(&self.ram, RX, length.min(first));
        payload.extend(read(&self.ram, RX + 0x1_0000, length.saturating_sub(first)));
        Some((header, payload))
    }

    fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        self.receive_into(4096)
    }

    fn header(&self, op: u16) -> Header {
        Header {
            src_cid: u64::from(CID),
            dst_cid: HOST_CID,
            src_port: GUEST_PORT,
            dst_port: self.port(),
            kind: TYPE_STREAM,
            op,
            buf_alloc: WINDOW,
            fwd_cnt: self.fwd_cnt,
            ..Header::default()
        }
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        self.ram.write_slice(payload, GuestAddress(TX)).unwrap();
        let header = Header { len: u32::try_from(payload.len()).unwrap(), ..header };
        let payload = buffer(&self.ram, &[(TX, payload.len())]);
        self.muxer.on_packet(&header, payload, Instant::now());
    }

    fn send_op(&mut self, op: u16) {
        self.send(self.header(op), &[]);
    }

    /// An established connection.
    fn connected() -> (Self, UnixStream) {
        let mut guest = Self::new();
        let mut client = guest.client();
        client.write_all(format!("CONNECT {GUEST_PORT}\n").as_bytes()).unwrap();
        guest.event(false);
        let (request, _) = guest.receive().unwrap();
        assert_eq!((request.op, request.dst_port, request.src_port), (op::REQUEST, GUEST_PORT, guest.port()));
        assert_eq!((request.src_cid, request.dst_cid, request.buf_alloc), (HOST_CID, u64::from(CID), BUFFER));
        guest.send_op(op::RESPONSE);
        let mut answer = vec![0; format!("OK {}\n", guest.port()).len()];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, format!("OK {}\n", guest.port()).as_bytes());
        (guest, client)
    }
}

fn is_closed(client: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).is_ok() && rest.is_empty()
}
