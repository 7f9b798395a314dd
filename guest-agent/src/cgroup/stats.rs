//! Counters of a pod or container, read from its control files.

use husk_agent_api::v1::{ContainerStatsResponse, IoStats};

use super::Cgroup;
use super::pressure;
use crate::error::Result;
use crate::fs::device_name;

/// More disks than a pod has.
const MAX_DEVICES: usize = 64;

/// The number of `key` in a flat keyed file; 0 when it is missing.
#[must_use]
pub fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(name, value)| (name == key).then(|| value.trim().parse().ok()).flatten())
        .unwrap_or(0)
}

/// A single number, where `max` is `u64::MAX`.
fn limit(text: &str) -> u64 {
    text.trim().parse().unwrap_or(u64::MAX)
}

/// Lines of `io.stat`: `MAJOR:MINOR rbytes=.. wbytes=.. rios=.. wios=.. ...`.
fn io(text: &str) -> Vec<IoStats> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
            let mut stats = IoStats { major, minor, device: device_name(major, minor), ..IoStats::default() };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let value = value.parse().unwrap_or(0);
                match key {
                    "rbytes" => stats.read_bytes = value,
                    "wbytes" => stats.write_bytes = value,
                    "rios" => stats.read_operations = value,
                    "wios" => stats.write_operations = value,
                    _ => {}
                }
            }
            Some(stats)
        })
        .take(MAX_DEVICES)
        .collect()
}

/// Reads all counters of a cgroup. Files that this kernel or level of the tree does not have count as empty.
pub fn read(cgroup: &Cgroup) -> Result<ContainerStatsResponse> {
    // This one exists everywhere: its absence means that the cgroup has gone.
    let cpu = cgroup.read("cpu.stat")?;
    let optional = |file| cgroup.read(file).unwrap_or_default();
    let number = |file| optional(file).trim().parse().unwrap_or(0);
    let memory = optional("memory.stat");
    let events = optional("memory.events");
    Ok(ContainerStatsResponse {
        cpu_usage_us: keyed(&cpu, "usage_usec"),
        cpu_user_us: keyed(&cpu, "user_usec"),
        cpu_system_us: keyed(&cpu, "system_usec"),
        cpu_periods: keyed(&cpu, "nr_periods"),
        cpu_throttled_periods: keyed(&cpu, "nr_throttled"),
        cpu_throttled_us: keyed(&cpu, "throttled_usec"),
        memory_usage: number("memory.current"),
        memory_limit: limit(&optional("memory.max")),
        memory_anon: keyed(&memory, "anon"),
        memory_file: keyed(&memory, "file"),
        memory_inactive_file: keyed(&memory, "inactive_file"),
        memory_kernel: keyed(&memory, "kernel"),
        memory_oom: keyed(&events, "oom"),
        memory_oom_kill: keyed(&events, "oom_kill"),
        pids_current: number("pids.current"),
        pids_limit: limit(&optional("pids.max")),
        io: io(&optional("io.stat")),
        network: Vec::new(),
        memory_page_faults: keyed(&memory, "pgfault"),
        memory_major_page_faults: keyed(&memory, "pgmajfault"),
        memory_mapped_file: keyed(&memory, "file_mapped"),
        memory_peak: number("memory.peak"),
        memory_limit_hits: keyed(&events, "max"),
        memory_swap: number("memory.swap.current"),
        cpu_pressure: pressure::parse(&optional("cpu.pressure")),
        memory_pressure: pressure::parse(&optional("memory.pressure")),
        io_pressure: pressure::parse(&optional("io.pressure")),
        // Not the cgroup's: `container::usage`.
        processes: 0,
        descriptors: None,
        sockets: None,
        layer: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("cpu.stat", "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 3\nnr_throttled 1\nthrottled_usec 9\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 100\nfile 200\nkernel 5\ninactive_file 50\nfile_mapped 7\npgfault 8\npgmajfault 2\n"),
            ("memory.peak", "8192\n"),
            ("memory.events", "max 6\noom 2\noom_kill 1\n"),
            ("io.pressure", "some avg10=1.50 avg60=0.00 avg300=0.25 total=9\n"),
            ("pids.current", "3\n"),
            ("pids.max", "64\n"),
            ("io.stat", "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nnonsense\n"),
        ];
        for (file, text) in files {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let stats = read(&Cgroup::at(dir.path())).unwrap();
        assert_eq!((stats.cpu_usage_us, stats.cpu_throttled_us), (10, 9));
        assert_eq!((stats.memory_usage, stats.memory_limit), (4096, u64::MAX));
        assert_eq!((stats.memory_inactive_file, stats.memory_oom_kill), (50, 1));
        assert_eq!((stats.memory_mapped_file, stats.memory_peak, stats.memory_limit_hits), (7, 8192, 6));
        assert_eq!(stats.io_pressure.unwrap().some.unwrap().average_10, 150);
        assert_eq!(stats.cpu_pressure, None);
        assert_eq!((stats.pids_current, stats.pids_limit), (3, 64));
        assert_eq!(stats.io.len(), 1);
        assert_eq!((stats.io[0].major, stats.io[0].write_operations), (254, 4));
    }

    #[test]
    fn a_missing_cgroup_is_an_error() {
        assert!(read(&Cgroup::at("/nonexistent")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in ".{0,200}") {
            let _ = (keyed(&text, "oom"), io(&text), limit(&text));
        }
    }
}
