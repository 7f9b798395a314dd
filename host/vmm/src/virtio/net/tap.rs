//! The host's end of the cable (`Documentation/networking/tuntap.rst`, include/uapi/linux/if_tun.h).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use vm_memory::VolatileSlice;

use super::{FEATURE_GUEST_CSUM, FEATURE_GUEST_TSO4, FEATURE_GUEST_TSO6, HEADER_LEN, NetError};
use crate::virtio::io as guest_io;

/// The ioctls that a tap needs; [`crate::seccomp`] allows them.
pub const TUNGETIFF: u64 = 0x8004_54d2;
pub const TUNSETOFFLOAD: u64 = 0x4004_54d0;
pub const TUNSETVNETHDRSZ: u64 = 0x4004_54d8;

const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

/// A tap whose frames have a virtio-net header in front.
#[derive(Debug)]
pub struct Tap(OwnedFd);

impl Tap {
    pub fn new(fd: OwnedFd) -> Result<Self, NetError> {
        // SAFETY: all-zero is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: TUNGETIFF writes one ifreq (tun_get_iff in drivers/net/tun.c).
        check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNGETIFF, &raw mut request) }).map_err(NetError::NoTap)?;
        // SAFETY: the kernel has filled this member; any bits are valid in it.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        let wanted = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if flags & wanted != wanted {
            return Err(NetError::Flags { flags: flags & 0xffff });
        }
        let length = libc::c_int::try_from(HEADER_LEN).unwrap_or(libc::c_int::MAX);
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETHDRSZ, &raw const length) }).map_err(NetError::Setup)?;
        rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| NetError::Setup(errno.into()))?;
        Ok(Self(fd))
    }

    /// Any descriptor that keeps frames apart, in place of a tap.
    #[cfg(test)]
    pub(super) fn stand_in(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Lets through what the guest's driver takes: frames without checksums, and larger than the MTU.
    pub(super) fn set_offloads(&self, features: u64) -> io::Result<()> {
        let mut flags = 0;
        // Without checksums there are no segments (section 5.1.3.1).
        if features & FEATURE_GUEST_CSUM != 0 {
            flags |= TUN_F_CSUM;
            for (feature, flag) in [(FEATURE_GUEST_TSO4, TUN_F_TSO4), (FEATURE_GUEST_TSO6, TUN_F_TSO6)] {
                if features & feature != 0 {
                    flags |= flag;
                }
            }
        }
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), TUNSETOFFLOAD, flags) })
    }

    /// One frame with its header; `WouldBlock` when none is there.
    pub(super) fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut *frame))?)
    }

    /// Sends one frame with its header.
    pub(super) fn send(&self, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        guest_io::write(&self.0, frame).map(drop)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
