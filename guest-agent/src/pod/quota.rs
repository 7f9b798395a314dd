//! What directories on the scratch disk hold, and may hold: ext4's project quotas
//! (`Documentation/filesystems/quota.rst`).

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Result};
use crate::sys::{ProjectUsage, project, project_usage, set_project, set_project_quota};

/// Quotas are counted in blocks of this many bytes (`QIF_DQBLKSIZE`).
const BLOCK: u64 = 1024;

/// Project 0 is everything that has none.
static NEXT_PROJECT: AtomicU32 = AtomicU32::new(1);

/// Makes an empty directory a project of its own, which what is made below inherits, with at most `bytes` in it.
pub(super) fn limit(directory: &Path, bytes: u64) -> Result<()> {
    let project = NEXT_PROJECT.fetch_add(1, Ordering::Relaxed);
    let fd = open(directory)?;
    set_project_quota(&fd, project, bytes.div_ceil(BLOCK)).on("quotactl_fd", directory.display())?;
    join(&fd, directory, project)
}

/// Makes an empty directory a project of its own without a limit, so that what is made below is counted. Names cannot be
/// moved between projects: what overlayfs renames into each other must be below one such directory.
pub fn count(directory: &Path) -> Result<()> {
    join(&open(directory)?, directory, NEXT_PROJECT.fetch_add(1, Ordering::Relaxed))
}

/// What a project's directory and all below it take. `None`: it is not a project of its own.
pub fn usage(directory: &Path) -> Result<Option<ProjectUsage>> {
    let fd = open(directory)?;
    let project = project(&fd).on("ioctl", format_args!("FS_IOC_FSGETXATTR {}", directory.display()))?;
    if project == 0 {
        return Ok(None);
    }
    project_usage(&fd, project).on("quotactl_fd", directory.display()).map(Some)
}

fn open(directory: &Path) -> Result<OwnedFd> {
    rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .on("open", directory.display())
}

fn join(fd: &OwnedFd, directory: &Path, project: u32) -> Result<()> {
    set_project(fd, project).on("ioctl", format_args!("FS_IOC_FSSETXATTR {}", directory.display()))
}
