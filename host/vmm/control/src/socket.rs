//! Sending and receiving one message with its file descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{MAX_FDS, MAX_MESSAGE};

/// Why a packet could not be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("control socket: {0}")]
    Io(#[from] std::io::Error),
    #[error("control message of {size} bytes is longer than {MAX_MESSAGE}")]
    TooLong { size: usize },
    #[error("control message with {count} file descriptors, at most {MAX_FDS} can travel")]
    TooManyFds { count: usize },
    #[error("control message was cut short: it or its file descriptors exceed the limits")]
    Truncated,
    #[error("control message cannot be read as JSON of the expected shape: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl From<rustix::io::Errno> for TransportError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// A message and the file descriptors that came with it.
#[derive(Debug)]
pub struct Received<T> {
    pub message: T,
    pub fds: Vec<OwnedFd>,
}

/// Sends one message. `WouldBlock` comes back as [`TransportError::Io`] when the socket does not block.
pub fn send<T: Serialize>(socket: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), TransportError> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(TransportError::TooLong { size: bytes.len() });
    }
    if fds.len() > MAX_FDS {
        return Err(TransportError::TooManyFds { count: fds.len() });
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(TransportError::TooManyFds { count: fds.len() });
    }
    rustix::io::retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one message; `None` when the other end has closed the socket.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<Option<Received<T>>, TransportError> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let answer = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    // Taken out first, so that they are closed whatever the message turns out to be.
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if answer.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(TransportError::Truncated);
    }
    // A SEQPACKET peer cannot send an empty packet by mistake: ours never does.
    let Some(text) = bytes.get(..answer.bytes).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    Ok(Some(Received { message: serde_json::from_slice(text)?, fds }))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::{Call, Device, Request};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_request_travels_with_its_descriptors() {
        let (ours, theirs) = pair();
        let request = Request { id: 7, call: Call::Plug(Device::Blk { read_only: true, serial: "root".into() }) };
        let file = File::open("/proc/self/comm").unwrap();
        send(&ours, &request, &[file.as_fd()]).unwrap();
        let received = receive::<Request>(&theirs).unwrap().unwrap();
        assert_eq!(received.message, request);
        let mut text = String::new();
        File::from(received.fds.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
    }

    #[test]
    fn a_closed_socket_is_the_end() {
        let (ours, theirs) = pair();
        drop(ours);
        assert!(receive::<Request>(&theirs).unwrap().is_none());
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let (ours, theirs) = pair();
        send(&ours, &serde_json::json!({"id": 1, "call": "status", "extra": 1}), &[]).unwrap();
        assert!(matches!(receive::<Request>(&theirs), Err(TransportError::Malformed(_))));
    }
}
