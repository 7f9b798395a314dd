//! What a process that is being set up tells the agent over its status socket.
//!
//! Datagrams: `R` it waits just before execve; `C` with a descriptor: the master of its pty; `F`, a gRPC code, text: it
//! has failed. The socket is close-on-exec, so the end of file after `R` (or, for an exec, without `R`) means that the
//! program runs. The agent treats all of it as hostile: a privileged container might have got hold of the process.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tonic::Code;

use crate::error::{Context, Error, Result};
use crate::zygote::channel;

const READY: u8 = b'R';
const CONSOLE: u8 = b'C';
const FAILED: u8 = b'F';
/// Longest error text that crosses.
const MAX_TEXT: usize = 4096;

/// The launching process's end.
#[derive(Debug)]
pub struct Status(OwnedFd);

impl Status {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// By write(2), like `failed`: a container's filter may not let sendmsg(2) through.
    pub(super) fn ready(&self) -> Result<()> {
        self.write(&[READY]).on("write", "status socket")
    }

    fn write(&self, message: &[u8]) -> rustix::io::Result<()> {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.0, message)).map(drop)
    }

    pub(super) fn console(&self, master: impl AsFd) -> Result<()> {
        channel::send(&self.0, &[CONSOLE], &[master.as_fd()]).on("sendmsg", "status socket")
    }

    pub(super) fn failed(&self, error: &Error) {
        let code = u8::try_from(i32::from(error.code())).unwrap_or(13);
        let mut message = vec![FAILED, code];
        message.extend(error.to_string().bytes().take(MAX_TEXT));
        let _ = self.write(&message);
    }
}

/// What the agent learns.
#[derive(Debug)]
pub enum Progress {
    /// It waits just before execve.
    Ready,
    /// The master of its pty.
    Console(OwnedFd),
    /// It has failed, and ends.
    Failed(Error),
    /// The socket is closed: execve has happened, or the process has gone.
    Closed,
}

fn parse(bytes: &[u8], mut fds: Vec<OwnedFd>) -> Progress {
    let nonsense = || Progress::Failed(Error::Internal("the launching process sent nonsense".to_owned()));
    match (bytes, fds.pop()) {
        ([READY], None) => Progress::Ready,
        ([CONSOLE], Some(master)) => Progress::Console(master),
        ([FAILED, code, text @ ..], None) => {
            let text = String::from_utf8_lossy(text.get(..text.len().min(MAX_TEXT)).unwrap_or_default()).into_owned();
            Progress::Failed(Error::from_code(Code::from_i32(i32::from(*code)), text))
        }
        _ => nonsense(),
    }
}

/// The agent's end.
#[derive(Debug)]
pub struct StatusReceiver(AsyncFd<OwnedFd>);

impl StatusReceiver {
    /// A new pair: our end, and the one to give to the zygote.
    pub fn pair() -> Result<(Self, OwnedFd)> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .on("socketpair", "status socket")?;
        let ours = crate::sys::watch(ours, Interest::READABLE).on("epoll_ctl", "status socket")?;
        Ok((Self(ours), theirs))
    }

    /// Waits for the next piece of news.
    pub async fn next(&self) -> Result<Progress> {
        loop {
            let mut ready = self.0.readable().await.on("poll", "status socket")?;
            match channel::receive(&self.0) {
                Ok(Some((bytes, fds))) => return Ok(parse(&bytes, fds)),
                Ok(None) | Err(Errno::CONNRESET) => return Ok(Progress::Closed),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno).on("recvmsg", "status socket"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_crosses_with_its_code_and_text() {
        let (receiver, end) = StatusReceiver::pair().unwrap();
        let status = Status::new(end);
        status.ready().unwrap();
        status.failed(&Error::precondition("exec \"x\": not found"));
        drop(status);
        assert!(matches!(receiver.next().await.unwrap(), Progress::Ready));
        let Progress::Failed(error) = receiver.next().await.unwrap() else { panic!("no error") };
        assert_eq!((error.code(), error.to_string().as_str()), (Code::FailedPrecondition, "exec \"x\": not found"));
        assert!(matches!(receiver.next().await.unwrap(), Progress::Closed));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            parse(&bytes, Vec::new());
        }
    }
}
