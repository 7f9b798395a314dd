//! virtio-vsock (section 5.10) with a hybrid backend: the host's side of every connection is a unix socket.
//!
//! A host process connects to the listening socket that the VMM was given, writes `CONNECT <port>\n` and reads
//! `OK <host port>\n` once the guest has accepted; from then on the socket is the connection. Should the guest refuse,
//! the socket is closed without an answer. Only the host opens connections: a request from the guest is reset.
//!
//! - `packet`: the header on the wire;
//! - `handshake`: the CONNECT line;
//! - `credit`: how much each side may send;
//! - `connection`: the state machine of one connection;
//! - `muxer`: all connections, packets to and from them;
//! - `device`: the loop between queues, sockets and muxer.

mod connection;
mod credit;
mod device;
mod handshake;
mod muxer;
mod packet;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::virtio::state::DeviceSpec;

pub use device::{ConnectionCount, Vsock, VsockError};

/// Virtio device id.
pub const DEVICE_TYPE: u32 = 19;
pub const NAME: &str = "vsock";
/// Receive (towards the guest), transmit and event queue.
pub const QUEUES: &[u16] = &[256, 256, 16];

/// The host's context id.
pub const HOST_CID: u64 = 2;
/// Smallest context id that a guest can have.
pub const FIRST_GUEST_CID: u32 = 3;

/// Connections at a time; further clients are turned away.
pub const CONNECTIONS_MAX: usize = 1023;
/// Bytes from the guest that one connection holds for a host process that does not read.
const BUFFER: u32 = 256 * 1024;
/// The guest is told of new room when this much has become free.
const CREDIT_UPDATE: u32 = BUFFER / 4;
/// Resets waiting for a receive buffer; beyond that no packet is taken from the guest.
const REPLIES_MAX: usize = 256;
/// Packets handled in one direction before the other one has its turn.
const BATCH: usize = 256;
/// For a client to say where it wants to, for a guest to accept, and for either to finish a close. Generous: a guest
/// under emulation is slow.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long what a guest sent last may take to reach host processes when the VM ends.
const FLUSH_TIME: Duration = Duration::from_secs(1);

fn spec(guest_cid: u32) -> DeviceSpec {
    let config = u64::from(guest_cid).to_le_bytes().to_vec();
    DeviceSpec { name: NAME, device_type: DEVICE_TYPE, features: 0, queues: QUEUES, config: config.into() }
}
