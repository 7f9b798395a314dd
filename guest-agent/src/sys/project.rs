//! Quota projects: which one a directory is in, and what a project may hold and holds (quotactl_fd(2)).

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use super::check;

/// `struct fsxattr` of linux/fs.h: flags, extent size, extents, project, copy-on-write extent size, padding.
type Attributes = [u32; 7];

/// What a project holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectUsage {
    /// What it takes of the disk, with what is yet to be written.
    pub bytes: u64,
    /// Files, directories and all else.
    pub inodes: u64,
}

/// Puts a directory into a quota project, and what is made in it later (`FS_IOC_FSSETXATTR` of linux/fs.h).
pub fn set_project(directory: impl AsFd, project: u32) -> Result<()> {
    const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
    const PROJECT_INHERIT: u32 = 0x200;
    let attributes: Attributes = [PROJECT_INHERIT, 0, 0, project, 0, 0, 0];
    // SAFETY: FS_IOC_FSSETXATTR reads one `struct fsxattr`, 28 bytes.
    check(unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), FS_IOC_FSSETXATTR, attributes.as_ptr()) }.into())
        .map(|_| ())
}

/// The quota project of a directory (`FS_IOC_FSGETXATTR`); 0 when it has none.
pub fn project(directory: impl AsFd) -> Result<u32> {
    const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
    let mut attributes: Attributes = [0; 7];
    // SAFETY: FS_IOC_FSGETXATTR writes one `struct fsxattr`, 28 bytes.
    check(unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), FS_IOC_FSGETXATTR, attributes.as_mut_ptr()) }.into())?;
    let [_, _, _, project, ..] = attributes;
    Ok(project)
}

/// Limits what a project may hold, in KiB (`Q_SETQUOTA`).
pub fn set_project_quota(file_system: impl AsFd, project: u32, kib: u64) -> Result<()> {
    const Q_SETQUOTA: u32 = 0x80_0008;
    const QIF_BLIMITS: u32 = 1;
    // SAFETY: all-zero is a valid `dqblk`.
    let mut limits: libc::dqblk = unsafe { std::mem::zeroed() };
    limits.dqb_bhardlimit = kib;
    limits.dqb_valid = QIF_BLIMITS;
    quotactl(file_system, Q_SETQUOTA, project, &mut limits)
}

/// What a project holds (`Q_GETQUOTA`).
pub fn project_usage(file_system: impl AsFd, project: u32) -> Result<ProjectUsage> {
    const Q_GETQUOTA: u32 = 0x80_0007;
    // SAFETY: all-zero is a valid `dqblk`.
    let mut found: libc::dqblk = unsafe { std::mem::zeroed() };
    quotactl(file_system, Q_GETQUOTA, project, &mut found)?;
    Ok(ProjectUsage { bytes: found.dqb_curspace, inodes: found.dqb_curinodes })
}

fn quotactl(file_system: impl AsFd, command: u32, project: u32, block: &mut libc::dqblk) -> Result<()> {
    const PRJQUOTA: u32 = 2;
    // SAFETY: both commands read or write one `struct if_dqblk`, which is what libc calls `dqblk`, and it is live.
    check(unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file_system.as_fd().as_raw_fd(),
            (command << 8) | PRJQUOTA,
            project,
            std::ptr::from_mut(block),
        )
    })
    .map(|_| ())
}
