//! CPU time of processes.

use std::time::Duration;

use anyhow::{Result, ensure};

/// User and system time of the processes so far, all threads, to the nanosecond (clock_getcpuclockid(3)). The time that a
/// vCPU spends in the guest is user time of the monitor.
pub(super) fn time_of(pids: &[i32]) -> Result<Duration> {
    pids.iter().map(|pid| process(*pid)).sum()
}

fn process(pid: i32) -> Result<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one clock id.
    let found = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    ensure!(found == 0, "process {pid} has no CPU clock: {}", std::io::Error::from_raw_os_error(found));
    // SAFETY: writes one timespec.
    let read = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(read == 0, "the CPU clock of process {pid}: {}", std::io::Error::last_os_error());
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

/// The kernel's threads with a name that begins like this.
pub(super) fn kernel_threads(prefix: &str) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(prefix)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_takes_time() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = time_of(&[own]).unwrap();
        let mut number = 1_u64;
        while time_of(&[own]).unwrap() == before {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        // One more than there can be (PID_MAX_LIMIT of include/linux/threads.h).
        assert!(time_of(&[(1 << 22) + 1]).is_err());
    }
}
