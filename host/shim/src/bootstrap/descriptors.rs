//! Keeping a caller's descriptors out of a daemon.

use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};

/// Marks every descriptor above the standard ones to be closed when a program is run: a daemon that inherits, say, the
/// write end of its caller's pipe would keep the reader waiting for ever.
pub(super) fn close_on_exec() -> std::io::Result<()> {
    let listing = std::fs::read_dir("/proc/self/fd")?;
    let open: Vec<RawFd> =
        listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2).collect();
    for fd in open {
        // SAFETY: the descriptor is used for one fcntl, which fails harmlessly if it was the listing's own and has been
        // closed since; nothing else in this single-threaded process opens or closes descriptors meanwhile.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // EBADF, as said.
        let _ = fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
    Ok(())
}
