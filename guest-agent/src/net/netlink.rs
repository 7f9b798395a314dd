//! A NETLINK_ROUTE socket that sends one request at a time and waits for its acknowledgement (netlink(7)).

use std::fmt::Display;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with};

use crate::error::{Context, Error, Result};

/// `NLMSG_ERROR`: an error, or with errno 0 the acknowledgement.
const ERROR: u16 = 2;
/// Bytes of `struct nlmsghdr`, before the errno.
const HEADER: usize = 16;

#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open() -> Result<Self> {
        // Protocol 0 of this family is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .on("socket", "NETLINK_ROUTE")?;
        bind(&socket, &SocketAddrNetlink::new(0, 0)).on("bind", "NETLINK_ROUTE")?;
        Ok(Self(socket))
    }

    /// Sends a request and waits for the kernel's answer. `what` and `object` say what it does, for the error.
    pub(super) fn send(&self, message: &[u8], what: &'static str, object: impl Display) -> Result<()> {
        sendto(&self.0, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))
            .on("sendto", format_args!("NETLINK_ROUTE to {what} {object}"))?;
        let mut answer = [0; 8192];
        let (length, _) =
            recv(&self.0, &mut answer, RecvFlags::empty()).on("recv", format_args!("the answer: {what} {object}"))?;
        match verdict(answer.get(..length).unwrap_or_default()) {
            Some(0) => Ok(()),
            Some(errno) => Err(Error::System {
                call: "netlink",
                object: format!("{what} {object}"),
                errno: Errno::from_raw_os_error(errno.saturating_neg()),
            }),
            None => {
                Err(Error::Internal(format!("netlink: {what} {object}: the kernel's answer is no acknowledgement")))
            }
        }
    }
}

/// The (negative) errno of an acknowledgement.
fn verdict(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let errno = answer.get(HEADER..HEADER.checked_add(4)?)?;
    (kind == ERROR).then_some(i32::from_ne_bytes(errno.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_acknowledgement_is_one() {
        let mut answer = [0; 36];
        answer[4] = 2;
        assert_eq!(verdict(&answer), Some(0));
        answer[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(verdict(&answer), Some(-17));
        assert_eq!(verdict(&answer[..19]), None);
        answer[4] = 3;
        assert_eq!(verdict(&answer), None);
        assert_eq!(verdict(&[]), None);
    }
}
