//! Datagrams with descriptors over a `SOCK_SEQPACKET` socket pair.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Longest datagram either side sends or accepts.
pub const MAX_DATAGRAM: usize = 16 << 10;
/// Most descriptors in a datagram; the kernel's limit (`SCM_MAX_FD`) is 253.
pub const MAX_FDS: usize = 200;

/// Sends one datagram with descriptors.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    if bytes.is_empty() || bytes.len() > MAX_DATAGRAM || fds.len() > MAX_FDS {
        return Err(Errno::MSGSIZE);
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE);
    }
    rustix::io::retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL))
        .map(drop)
}

/// Receives one datagram with its descriptors, close-on-exec. `None`: the peer has gone.
///
/// # Errors
///
/// `MSGSIZE` when anything was cut off, beside what recvmsg(2) returns.
pub fn receive(socket: impl AsFd) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0_u8; MAX_DATAGRAM];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    Ok(Some((bytes, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn descriptors_travel_with_their_datagram() {
        let (a, b) = pair();
        let (read, write) = rustix::pipe::pipe().unwrap();
        send(&a, b"first", &[write.as_fd()]).unwrap();
        send(&a, b"second", &[]).unwrap();
        drop(write);
        let (bytes, fds) = receive(&b).unwrap().unwrap();
        assert_eq!((bytes.as_slice(), fds.len()), (b"first".as_slice(), 1));
        rustix::io::write(&fds[0], b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&read, &mut byte).unwrap(), 1);
        assert_eq!(receive(&b).unwrap().unwrap().0, b"second");
    }

    #[test]
    fn a_closed_peer_is_the_end() {
        let (a, b) = pair();
        drop(a);
        assert!(receive(&b).unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_is_refused_by_both_sides() {
        let (a, b) = pair();
        assert_eq!(send(&a, &vec![0; MAX_DATAGRAM + 1], &[]), Err(Errno::MSGSIZE));
        rustix::net::send(&a, &vec![1; MAX_DATAGRAM + 1], SendFlags::empty()).unwrap();
        assert_eq!(receive(&b).unwrap_err(), Errno::MSGSIZE);
    }
}
