//! What a pod's VMM costs the host: all of the VM's memory and CPU time are its process's.

use std::fs;

/// Ticks per second in `/proc/PID/stat`, on every x86 (`USER_HZ`).
const TICKS: u64 = 100;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct VmmUse {
    pub(crate) cpu_ms: u64,
    pub(crate) age_ms: u64,
    pub(crate) resident_bytes: u64,
}

/// `None` when the process has ended.
pub(crate) fn usage(pid: u32) -> Option<VmmUse> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    parse(&read("stat")?, &read("status")?, &uptime)
}

fn parse(stat: &str, status: &str, uptime: &str) -> Option<VmmUse> {
    // The command's name may hold spaces and parentheses: what follows is counted from the last one, the state being
    // field 3 of proc_pid_stat(5).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ms = |number: usize| {
        let ticks: u64 = fields.get(number.checked_sub(3)?)?.parse().ok()?;
        ticks.checked_mul(1000 / TICKS)
    };
    let resident: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok())?;
    let (seconds, hundredths) = uptime.split_ascii_whitespace().next()?.split_once('.')?;
    let up_ms = seconds
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(hundredths.parse::<u64>().ok()?.checked_mul(10)?)?;
    Some(VmmUse {
        cpu_ms: ms(14)?.checked_add(ms(15)?)?,
        age_ms: up_ms.saturating_sub(ms(22)?),
        resident_bytes: resident.checked_mul(1024)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured() {
        let stat = "7 (husk-vmm) x) S 1 7 7 0 -1 4194560 0 0 0 0 150 50 0 0 20 0 3 0 1000 0 0";
        let usage = parse(stat, "Name:\thusk-vmm\nVmRSS:\t   12 kB\n", "15.25 3.00\n").unwrap();
        assert_eq!(usage, VmmUse { cpu_ms: 2000, age_ms: 5250, resident_bytes: 12 << 10 });
        let own = super::usage(std::process::id()).unwrap();
        assert!(own.resident_bytes > 0);
        assert!(super::usage(u32::MAX).is_none());
    }
}
