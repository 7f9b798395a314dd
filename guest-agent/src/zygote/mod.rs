//! The zygote: a single-threaded process, forked from PID 1 before it has threads, that makes every other process.
//!
//! A process that is cloned from a threaded one may only call async-signal-safe functions; one that is cloned from the
//! zygote may do anything, so the whole set-up of a container is ordinary code (`launch`). The zygote clones with
//! `CLONE_PARENT`, so what it makes are children of PID 1, which learns of their end by itself.
//!
//! `message` is what the two say to each other, `channel` how datagrams and descriptors travel, `server` the zygote
//! and `client` PID 1's side.

pub mod channel;
pub mod client;
pub mod message;
pub mod server;

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::error::{Context, Result};
use crate::sys::{Cloned, clone3};

/// The forked zygote, as PID 1 holds it.
#[derive(Debug)]
pub struct Zygote {
    /// Its process id.
    pub pid: i32,
    /// Our end of the channel to it.
    pub channel: OwnedFd,
}

/// Forks the zygote. In the child this never returns.
///
/// # Safety
///
/// The process must be single-threaded.
pub unsafe fn fork() -> Result<Zygote> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .on("socketpair", "zygote channel")?;
    // SAFETY: single-threaded, as our caller promises.
    match unsafe { clone3(0, None) }.on("clone3", "zygote")? {
        Cloned::Parent { pid, .. } => Ok(Zygote { pid, channel: ours }),
        Cloned::Child => {
            drop(ours);
            server::run(theirs)
        }
    }
}
