//! The network interface, set up by the old ioctls of netdevice(7): one address is all it needs.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

const NETMASK: [u8; 4] = [255, 255, 255, 0];

pub(crate) fn exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Gives the interface its address in a network of 24 bits, and sets it up.
pub(crate) fn up(name: &str, address: IpAddr) -> Result<()> {
    let IpAddr::V4(address) = address else { bail!("the address {address} is not IPv4") };
    set_address(name, libc::SIOCSIFADDR, address.octets()).with_context(|| format!("giving {name} {address}"))?;
    set_address(name, libc::SIOCSIFNETMASK, NETMASK).with_context(|| format!("giving {name} its netmask"))?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    set(libc::SIOCSIFFLAGS, &request).with_context(|| format!("setting {name} up"))
}

fn set_address(name: &str, what: libc::c_ulong, address: [u8; 4]) -> Result<()> {
    let mut request = request(name)?;
    let internet = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address) },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes that any bits are valid in.
    request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(internet) };
    Ok(set(what, &request)?)
}

fn request(name: &str) -> Result<libc::ifreq> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(name.len() < request.ifr_name.len(), "{name} is too long for an interface");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from)?;
    }
    Ok(request)
}

fn set(what: libc::c_ulong, request: &libc::ifreq) -> io::Result<()> {
    // Any socket will do.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: these ioctls read one ifreq (net/core/dev_ioctl.c).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what, std::ptr::from_ref(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
