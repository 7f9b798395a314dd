//! System calls straight between file descriptors and guest memory.
//!
//! The kernel's vectored calls take raw pointers; this is the one place that makes them, from slices that are known to
//! lie in guest memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use vm_memory::VolatileSlice;

/// More pieces than this the kernel refuses (`UIO_MAXIOV`); a call then handles only the first ones.
const MOST_PIECES: usize = 1024;

fn iovecs(slices: &[VolatileSlice<'_>]) -> Vec<libc::iovec> {
    slices
        .iter()
        .take(MOST_PIECES)
        .map(|slice| libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() })
        .collect()
}

/// Repeats a call that a signal interrupted, and turns its result into ours.
fn check(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

fn count(iovecs: &[libc::iovec]) -> i32 {
    i32::try_from(iovecs.len()).unwrap_or(0)
}

fn position(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Reads from a file at `offset` into guest memory; may read less than fits.
pub fn read_at(file: impl AsFd, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    let (fd, iovecs, offset) = (file.as_fd().as_raw_fd(), iovecs(slices), position(offset)?);
    // SAFETY: every iovec covers mapped guest memory that outlives the call; `slices` holds it. That the guest may
    // change it meanwhile concerns only the guest: no Rust reference to it exists.
    check(|| unsafe { libc::preadv(fd, iovecs.as_ptr(), count(&iovecs), offset) })
}

/// Writes guest memory into a file at `offset`; may write less.
pub fn write_at(file: impl AsFd, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    let (fd, iovecs, offset) = (file.as_fd().as_raw_fd(), iovecs(slices), position(offset)?);
    // SAFETY: as in `read_at`.
    check(|| unsafe { libc::pwritev(fd, iovecs.as_ptr(), count(&iovecs), offset) })
}

/// Writes guest memory to the end of a file, wherever that is by then (`RWF_APPEND`); may write less. `offset` is where
/// the guest believes the end to be: overlayfs drops the flag (`ovl_write_iter` in `fs/overlayfs/file.c`, Linux 6.1).
pub fn append(file: impl AsFd, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    let (fd, iovecs, offset) = (file.as_fd().as_raw_fd(), iovecs(slices), position(offset)?);
    // SAFETY: as in `read_at`.
    check(|| unsafe { libc::pwritev2(fd, iovecs.as_ptr(), count(&iovecs), offset, libc::RWF_APPEND) })
}

/// Reads from a stream into guest memory; 0 is its end.
pub fn read(stream: impl AsFd, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let (fd, iovecs) = (stream.as_fd().as_raw_fd(), iovecs(slices));
    // SAFETY: as in `read_at`.
    check(|| unsafe { libc::readv(fd, iovecs.as_ptr(), count(&iovecs)) })
}

/// Writes guest memory as one message or as far as it goes.
pub fn write(stream: impl AsFd, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let (fd, iovecs) = (stream.as_fd().as_raw_fd(), iovecs(slices));
    // SAFETY: as in `read_at`.
    check(|| unsafe { libc::writev(fd, iovecs.as_ptr(), count(&iovecs)) })
}

/// Sends guest memory into a socket, without a signal when the other end is gone; may send less.
pub fn send(socket: impl AsFd, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let (fd, mut iovecs) = (socket.as_fd().as_raw_fd(), iovecs(slices));
    // SAFETY: a msghdr of zeroes is a valid, empty one; it has padding, so it cannot be built field by field.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = iovecs.as_mut_ptr();
    message.msg_iovlen = iovecs.len();
    // SAFETY: as in `read_at`; `message` points to `iovecs`, which outlives the call.
    check(|| unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL) })
}
