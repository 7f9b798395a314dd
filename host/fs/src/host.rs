//! System calls on objects of the host. All of them start from a descriptor; see the crate's page for the rules.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Timestamps, Uid, chmodat, chownat, openat, openat2,
    statx, utimensat,
};
use rustix::io::Errno;

use crate::name::Name;

pub(crate) type Result<T> = std::result::Result<T, Errno>;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// What `statx` tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) device: (u32, u32),
    pub(crate) mount: u64,
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Major and minor number of a device node.
    pub(crate) device_number: (u32, u32),
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) block_size: u32,
    pub(crate) accessed: Time,
    pub(crate) modified: Time,
    pub(crate) changed: Time,
    /// Where the file system keeps it.
    pub(crate) born: Option<Time>,
}

impl Stat {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

/// A device number as FUSE carries it (`new_encode_dev` in `include/linux/kdev_t.h`).
pub(crate) fn encode_device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

pub(crate) fn stat(fd: impl AsFd) -> Result<Stat> {
    let found = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID)?;
    let has_birth = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    let time = |time: rustix::fs::StatxTimestamp| Time { seconds: time.tv_sec, nanoseconds: time.tv_nsec };
    Ok(Stat {
        device: (found.stx_dev_major, found.stx_dev_minor),
        mount: found.stx_mnt_id,
        inode: found.stx_ino,
        mode: u32::from(found.stx_mode),
        links: found.stx_nlink,
        uid: found.stx_uid,
        gid: found.stx_gid,
        device_number: (found.stx_rdev_major, found.stx_rdev_minor),
        size: found.stx_size,
        blocks: found.stx_blocks,
        block_size: found.stx_blksize,
        accessed: time(found.stx_atime),
        modified: time(found.stx_mtime),
        changed: time(found.stx_ctime),
        born: has_birth.then(|| time(found.stx_btime)),
    })
}

/// The object of that name, itself: a symbolic link is not followed.
pub(crate) fn lookup(directory: impl AsFd, name: Name<'_>) -> Result<OwnedFd> {
    open_beneath(directory, name.as_c_str(), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens a name in a directory, or the directory itself as `.`.
pub(crate) fn open_beneath(directory: impl AsFd, name: &CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    loop {
        // EAGAIN: a rename or mount somewhere on the host got in between (openat2(2), RESOLVE_BENEATH).
        match openat2(&directory, name, flags, mode, BENEATH) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// `/proc/PID/fd` of this very process: the way from an `O_PATH` descriptor to one that can read and write.
#[derive(Debug)]
pub(crate) struct Descriptors(OwnedFd);

impl Descriptors {
    /// Takes the directory and tries whether it is what it should be; `None` if it is not.
    pub(crate) fn new(directory: OwnedFd) -> Option<Self> {
        let own = stat(&directory).ok()?;
        let this = Self(directory);
        let through = this.reopen(this.0.as_fd(), OFlags::PATH).ok()?;
        let same = stat(&through).ok()?;
        (same.device == own.device && same.inode == own.inode).then_some(this)
    }

    fn entry(fd: BorrowedFd<'_>) -> String {
        fd.as_raw_fd().to_string()
    }

    /// Opens the object behind a descriptor anew. The magic link leads to the object, never through its name.
    pub(crate) fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
        rustix::io::retry_on_intr(|| openat(&self.0, Self::entry(fd), flags | OFlags::CLOEXEC, Mode::empty()))
    }

    /// Sets mode bits: `fchmod` refuses `O_PATH` descriptors, and `fchmodat2` needs Linux 6.6.
    pub(crate) fn change_mode(&self, fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
        chmodat(&self.0, Self::entry(fd), Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
    }

    /// Gives an object one more name; `linkat(AT_EMPTY_PATH)` would need a capability.
    pub(crate) fn link(&self, fd: BorrowedFd<'_>, directory: impl AsFd, name: Name<'_>) -> Result<()> {
        rustix::fs::linkat(&self.0, Self::entry(fd), directory, name.as_c_str(), AtFlags::SYMLINK_FOLLOW)
    }
}

/// Changes owner and group; `None` leaves one as it is.
pub(crate) fn change_owner(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    // The id of all ones means "leave" to the system call (chown(2)).
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::INVAL);
    }
    chownat(fd, c"", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)
}

pub(crate) fn change_times(fd: impl AsFd, times: &Timestamps) -> Result<()> {
    utimensat(fd, c"", times, AtFlags::EMPTY_PATH)
}
