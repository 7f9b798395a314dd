//! The control socket of `husk-vmm`.
//!
//! One `SOCK_SEQPACKET` unix socket, inherited by the VMM as a file descriptor, carries everything between the VMM and
//! the process that started it: requests towards the VMM, replies and events back. A packet is one JSON message and the
//! file descriptors that it names, in the order that the message's documentation gives. The VMM opens no path: every
//! resource arrives here. When the socket's other end closes, the VMM ends the VM and itself.

mod message;
mod socket;

pub use message::{
    Boot, Call, CallError, Device, ErrorKind, Event, ExitReason, FromVmm, HotplugState, Outcome, Reply, Request,
    SlotIndex, SlotState, Status, Timeline,
};
pub use socket::{Received, TransportError, receive, send};

/// Largest message in bytes, JSON text without the file descriptors.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most file descriptors beside one message.
pub const MAX_FDS: usize = 253;
