//! Eventfds as borrowed descriptors.

use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Makes a non-blocking eventfd that is closed on exec.
pub fn eventfd() -> std::io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
}

/// The descriptor of an eventfd, for poll and epoll; `vmm-sys-util` offers only the raw one.
#[must_use]
pub fn descriptor(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the eventfd stays open at least as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
