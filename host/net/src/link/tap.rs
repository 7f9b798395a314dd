//! The tap that a guest's network device reads and writes.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use rtnetlink::LinkUnspec;
use rustix::ioctl::{Updater, ioctl, opcode};

use super::LinkError;
use super::netlink::{Link, inside};
use crate::netns::NetNs;

/// include/uapi/linux/if_tun.h; its argument is in truth a `struct ifreq`.
const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<libc::c_int>(b'T', 202);

/// Makes the tap `name` inside the namespace, up, with the given MTU, and answers with its descriptor.
///
/// The descriptor is the tap: frames with a virtio-net header before each (`IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`),
/// non-blocking, closed on exec, and usable from any namespace. The tap is not persistent; it goes when the last copy of
/// the descriptor is closed. The size of the header and the offloads are left to who speaks virtio.
pub async fn create_tap(netns: &NetNs, name: &str, mtu: u32) -> Result<OwnedFd, LinkError> {
    let link = Link::new(netns, name)?;
    let tap = link.clone();
    inside(netns, &link, move |handle| {
        Box::pin(async move {
            let fd = open(&tap)?;
            silence(&tap)?;
            let up = LinkUnspec::new_with_name(&tap.name).mtu(mtu).up().build();
            handle.link().set(up).execute().await.map_err(tap.failed("set its MTU and set it up"))?;
            Ok(fd)
        })
    })
    .await
}

fn open(tap: &Link) -> Result<OwnedFd, LinkError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|source| LinkError::NoTun { source })?;
    // IFF_TUN_EXCL: a tap of that name which somebody left is not to be taken over.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let mut request = interface_request(&tap.name, flags);
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq` (tun_chr_ioctl in drivers/net/tun.c), which `request` is.
    match unsafe { ioctl(&file, Updater::<TUNSETIFF, libc::ifreq>::new(&mut request)) } {
        Err(rustix::io::Errno::BUSY | rustix::io::Errno::EXIST) => {
            Err(LinkError::TapExists { netns: tap.netns.clone(), name: tap.name.clone() })
        }
        result => result.map(|()| file.into()).map_err(tap.io("make the tap (this needs CAP_NET_ADMIN)")),
    }
}

/// `name` is short enough for its NUL: see [`super::netlink::check_name`].
fn interface_request(name: &str, flags: libc::c_int) -> libc::ifreq {
    let mut ifr_name: [libc::c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // The kernel keeps the flags in a short; IFF_TUN_EXCL is its highest bit.
    #[allow(clippy::cast_possible_truncation, reason = "all flags of if_tun.h lie below 1 << 16")]
    let ifru_flags = flags as libc::c_short;
    libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags } }
}

/// Keeps the namespace's IPv6 from router solicitations, listener reports and an address of its own on the tap.
fn silence(tap: &Link) -> Result<(), LinkError> {
    match std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap.name), "1") {
        // A kernel without IPv6 is silent, and so is a tap with an MTU below IPv6's 1280.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(tap.io("turn IPv6 off (is /proc/sys writable?)")),
    }
}
