//! Naming a process so that a later process with the same pid is not taken for it.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A pid with the time of the process's start, in clock ticks since boot (`/proc/PID/stat`, field 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pid: u32,
    start: u64,
}

impl ProcessId {
    pub(crate) fn own() -> Self {
        let pid = std::process::id();
        Self { pid, start: start_time(pid).unwrap_or_default() }
    }

    pub(crate) fn is_own(self) -> bool {
        self == Self::own()
    }

    pub(crate) fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    /// Kills it, if it still is what it was.
    pub(crate) fn kill(self) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        // The pidfd pins the process; only then is its identity checked.
        if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty())
            && self.is_alive()
        {
            let _ = pidfd_send_signal(fd, Signal::KILL);
        }
    }
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and parentheses: what follows is counted from the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_ends() {
        assert!(ProcessId::own().is_alive() && ProcessId::own().is_own());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId { pid: child.id(), start: start_time(child.id()).unwrap() };
        assert!(id.is_alive());
        assert!(!ProcessId { start: id.start + 1, ..id }.is_alive(), "another process with its pid");
        id.kill();
        child.wait().unwrap();
        assert!(!id.is_alive());
    }
}
