//! What a container's processes are doing, as the agent's own procfs shows them: the container needs no `ps` for it.

use std::fs::File;
use std::io::Read as _;

use husk_agent_api::v1::ProcessInfo;
use rustix::process::Pid;

use super::Container;
use super::control::is_in;

/// The host takes no larger message than 1 MiB.
const MAX_COMMANDS: usize = 512 * 1024;
/// Most bytes of one command, if there are not too many.
const MAX_COMMAND: usize = 4096;
/// Longest `status` or `stat`; what is beyond is of no interest here.
const MAX_FILE: u64 = 16 * 1024;
/// Ticks per second in `/proc/PID/stat`, on every x86 (`USER_HZ`).
const TICKS: u64 = 100;

/// Tells of each of `pids` that still is a process of the container.
#[must_use]
pub fn describe(container: &Container, pids: &[u32]) -> Vec<ProcessInfo> {
    let uptime_ms = uptime_ms();
    let longest = MAX_COMMAND.min(MAX_COMMANDS / pids.len().max(1));
    pids.iter()
        .filter_map(|pid| {
            let status = read(*pid, "status", MAX_FILE)?;
            let stat = read(*pid, "stat", MAX_FILE)?;
            let command = read(*pid, "cmdline", u64::try_from(longest).unwrap_or(u64::MAX))?;
            // The number may have been given to another process since it was listed.
            let raw = i32::try_from(*pid).ok().and_then(Pid::from_raw)?;
            if !is_in(raw, &container.cgroup) {
                return None;
            }
            let mut info = parse(*pid, uptime_ms, &status, &stat, &command);
            if let Some(users) = &container.users {
                (info.uid, info.gid) = users.inside(info.uid, info.gid);
            }
            Some(info)
        })
        .collect()
}

fn read(pid: u32, file: &str, limit: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/{file}")).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000)
}

/// proc_pid_status(5), proc_pid_stat(5). What cannot be read is left at nothing.
fn parse(pid: u32, uptime_ms: u64, status: &str, stat: &str, cmdline: &str) -> ProcessInfo {
    let line = |key: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.unwrap_or_default().trim()
    };
    let first = |key: &str| line(key).split_ascii_whitespace().next().unwrap_or_default();
    let kib = |key: &str| first(key).parse::<u64>().unwrap_or(0).saturating_mul(1024);
    // The name is in parentheses and may hold any byte: what follows is counted from the last one.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    // Numbered as in the manual page, where the state is field 3.
    let field = |number: usize| number.checked_sub(3).and_then(|at| fields.get(at)).copied().unwrap_or_default();
    let ticks = |number: usize| field(number).parse::<u64>().unwrap_or(0).saturating_mul(1000 / TICKS);
    ProcessInfo {
        pid,
        parent_pid: first("PPid").parse().unwrap_or(0),
        container_pid: line("NSpid").split_ascii_whitespace().last().and_then(|id| id.parse().ok()).unwrap_or(pid),
        uid: first("Uid").parse().unwrap_or(0),
        gid: first("Gid").parse().unwrap_or(0),
        state: first("State").chars().take(1).collect(),
        threads: first("Threads").parse().unwrap_or(0),
        nice: field(19).parse().unwrap_or(0),
        elapsed_ms: uptime_ms.saturating_sub(ticks(22)),
        cpu_ms: ticks(14).saturating_add(ticks(15)),
        resident_bytes: kib("VmRSS"),
        virtual_bytes: kib("VmSize"),
        terminal: field(7).parse().map(terminal).unwrap_or_default(),
        name: line("Name").chars().take(64).collect(),
        command: cmdline.trim_end_matches('\0').replace('\0', " "),
    }
}

/// The name of a terminal's device number as the kernel encodes it (`new_encode_dev`).
fn terminal(device: u32) -> String {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    match major {
        0 => String::new(),
        4 => format!("tty{minor}"),
        5 => "console".to_owned(),
        136..=143 => format!("pts/{}", minor.saturating_add((major.saturating_sub(136)).saturating_mul(256))),
        _ => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsh\nState:\tS (sleeping)\nPPid:\t41\nUid:\t7\t8\t9\t10\nGid:\t11\t11\t11\t11\n\
                          NSpid:\t42\t3\nVmSize:\t  2048 kB\nVmRSS:\t    12 kB\nThreads:\t2\n";
    const STAT: &str = "42 (a) b) S 41 42 42 34817 42 4194304 1 2 3 4 150 50 0 0 20 -5 2 0 1000 2097152 3 0";

    #[test]
    fn a_process_is_told_by_its_own_words() {
        let info = parse(42, 15_000, STATUS, STAT, "sh\0-c\0sleep 1\0");
        assert_eq!((info.pid, info.parent_pid, info.container_pid), (42, 41, 3));
        assert_eq!((info.uid, info.gid, info.state.as_str(), info.threads, info.nice), (7, 11, "S", 2, -5));
        assert_eq!((info.elapsed_ms, info.cpu_ms), (5_000, 2_000));
        assert_eq!((info.resident_bytes, info.virtual_bytes), (12 << 10, 2 << 20));
        assert_eq!(
            (info.terminal.as_str(), info.name.as_str(), info.command.as_str()),
            ("pts/1", "sh", "sh -c sleep 1")
        );
    }

    #[test]
    fn our_own_process_is_readable() {
        let own = std::process::id();
        let info =
            parse(own, uptime_ms(), &read(own, "status", MAX_FILE).unwrap(), &read(own, "stat", MAX_FILE).unwrap(), "");
        assert_eq!(info.parent_pid, std::os::unix::process::parent_id());
        assert!(info.threads > 0 && info.resident_bytes > 0);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(status in ".{0,200}", stat in ".{0,200}", command in ".{0,80}", device: u32) {
            let _ = (parse(1, 1, &status, &stat, &command), terminal(device));
        }
    }
}
