//! Limits of directories on the scratch disk: ext4's project quotas (`Documentation/filesystems/quota.rst`).

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Result};
use crate::sys::{set_project, set_project_quota};

/// Quotas are counted in blocks of this many bytes (`QIF_DQBLKSIZE`).
const BLOCK: u64 = 1024;

/// Project 0 is everything that has none.
static NEXT_PROJECT: AtomicU32 = AtomicU32::new(1);

/// Makes an empty directory a project of its own, which what is made below inherits, with at most `bytes` in it.
pub(super) fn limit(directory: &Path, bytes: u64) -> Result<()> {
    let project = NEXT_PROJECT.fetch_add(1, Ordering::Relaxed);
    let fd = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .on("open", directory.display())?;
    set_project_quota(&fd, project, bytes.div_ceil(BLOCK)).on("quotactl_fd", directory.display())?;
    set_project(&fd, project).on("ioctl", format_args!("FS_IOC_FSSETXATTR {}", directory.display()))
}
