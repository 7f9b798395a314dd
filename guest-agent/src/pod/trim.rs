//! Giving the space of deleted files back to the host (fstrim(8)).
//!
//! A discard with every deletion would make each one wait for the host. Instead the file system is looked at now and
//! then, and trimmed when enough was written or has become free since the last time.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::sync::Mutex;

use super::slots::blocking;
use crate::error::{Context, Result};
use crate::paths;
use crate::sys::trim;

const INTERVAL: Duration = Duration::from_secs(15);
/// Bytes written, or become free, that are worth the host's while.
const WORTH: u64 = 8 << 20;
/// The unit of a block device's statistics (`Documentation/admin-guide/iostats.rst`).
const SECTOR: u64 = 512;

/// Held while the scratch disk is being trimmed; its owner drops it when the disk is to be unmounted.
pub(super) type Trimming = Arc<Mutex<()>>;

/// Trims the scratch disk whenever it is worth it, for as long as `trimming` has its owner.
pub(super) async fn keep_trimmed(trimming: Weak<Mutex<()>>) {
    let mut last = Usage { written: 0, free: u64::MAX };
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(trimming) = trimming.upgrade() else { return };
        let _held = trimming.lock().await;
        match blocking(move || step(last)).await {
            Ok(Ok(now)) => last = now,
            Ok(Err(error)) | Err(error) => {
                crate::warning!("the scratch disk is not trimmed any more: {error}");
                return;
            }
        }
    }
}

/// Of the scratch disk, in bytes.
#[derive(Debug, Clone, Copy)]
struct Usage {
    /// Since the disk was plugged.
    written: u64,
    free: u64,
}

impl Usage {
    fn now() -> Result<Self> {
        let found = rustix::fs::statvfs(paths::SCRATCH).on("statvfs", paths::SCRATCH)?;
        let device = rustix::fs::stat(paths::SCRATCH).on("stat", paths::SCRATCH)?.st_dev;
        let statistics = format!("/sys/dev/block/{}:{}/stat", rustix::fs::major(device), rustix::fs::minor(device));
        let text = std::fs::read_to_string(&statistics).on("read", &statistics)?;
        let sectors: u64 = text.split_whitespace().nth(6).and_then(|number| number.parse().ok()).unwrap_or(0);
        Ok(Self { written: sectors.saturating_mul(SECTOR), free: found.f_bfree.saturating_mul(found.f_frsize) })
    }
}

/// Trims if it is worth it; returns the state at the last trim. What was written may have been deleted again, which
/// the free space alone does not tell.
fn step(last: Usage) -> Result<Usage> {
    let now = Usage::now()?;
    if now.written.saturating_sub(last.written) < WORTH && now.free.saturating_sub(last.free) < WORTH {
        return Ok(Usage { free: now.free.min(last.free), ..last });
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(paths::SCRATCH, flags, Mode::empty()).on("open", paths::SCRATCH)?;
    trim(&fd).on("ioctl", format_args!("FITRIM {}", paths::SCRATCH))?;
    Ok(now)
}
