//! What a command takes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Time on the clock, and user and system time of a process with all that it waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

impl Cost {
    /// Both, one after the other.
    pub(super) fn and(self, other: Self) -> Self {
        Self { wall: self.wall + other.wall, cpu: self.cpu + other.cpu }
    }
}

/// Runs a command that must succeed. Nothing else may end meanwhile that this process started.
pub(super) fn measure(command: &mut Command) -> Result<Cost> {
    let (began, before) = (Instant::now(), cpu_of_children()?);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    let (wall, after) = (began.elapsed(), cpu_of_children()?);
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Cost { wall, cpu: after.saturating_sub(before) })
}

/// Of all children that ended and were waited for, and theirs (getrusage(2)).
fn cpu_of_children() -> Result<Duration> {
    // SAFETY: plain numbers, for which all zeros is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes one rusage.
    let read = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    ensure!(read == 0, "the children's CPU time: {}", std::io::Error::last_os_error());
    let duration = |time: libc::timeval| -> Result<Duration> {
        Ok(Duration::from_secs(time.tv_sec.try_into()?) + Duration::from_micros(time.tv_usec.try_into()?))
    };
    Ok(duration(usage.ru_utime)? + duration(usage.ru_stime)?)
}

/// What a directory and everything in it take on disk.
pub(super) fn disk_bytes(path: &Path) -> Result<u64> {
    let metadata = std::fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            bytes += disk_bytes(&entry?.path())?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_what_a_command_waits_for_counts() {
        let work = "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done";
        let cost = measure(Command::new("sh").args(["-c", &format!("sh -c '{work}'; true")])).unwrap();
        assert!(cost.cpu > Duration::ZERO && cost.wall > Duration::ZERO);
        assert!(measure(&mut Command::new("false")).is_err());
    }

    #[test]
    fn a_hole_takes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        assert!(disk_bytes(dir.path()).unwrap() < 1 << 20);
    }
}
