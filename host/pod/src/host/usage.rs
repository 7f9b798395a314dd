//! What a pod takes of the host, by the host's own count: unlike the guest's, it cannot be made up.

use std::path::PathBuf;

use super::cgroup::Cgroup;

/// A pod's cgroup and VMM on the host. A number that the host does not keep is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostUsage {
    /// Below the cgroup v2 mount; empty when the pod lives in its starter's cgroup.
    pub cgroup: PathBuf,
    /// CPU time of guest and VMM, microseconds.
    pub cpu_us: u64,
    pub cpu_user_us: u64,
    pub cpu_system_us: u64,
    /// Time that the CPU limit held it back, microseconds.
    pub cpu_throttled_us: u64,
    /// Guest, VMM, and what the host's kernel keeps for them: tables, cached blocks of disk images. Bytes.
    pub memory: u64,
    pub memory_peak: u64,
    /// `u64::MAX` = none.
    pub memory_limit: u64,
    /// Of that, what neither the page cache nor the kernel holds: guest memory that was touched, and the VMM's own.
    pub memory_anon: u64,
    /// Of `memory`, blocks of files that have not been used for a while.
    pub memory_inactive_file: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// Resident memory of the VMM process, guest included.
    pub vmm_resident: u64,
}

impl HostUsage {
    /// Reads the counters.
    pub(crate) fn read(cgroup: Option<&Cgroup>, vmm: u32) -> Self {
        let mut usage = Self { vmm_resident: resident(vmm), memory_limit: u64::MAX, ..Self::default() };
        let Some(cgroup) = cgroup else { return usage };
        let read = |file| cgroup.get(file).unwrap_or_default();
        let number = |file| read(file).trim().parse().unwrap_or(0);
        let (cpu, memory) = (read("cpu.stat"), read("memory.stat"));
        usage.cgroup = cgroup.relative();
        usage.cpu_us = keyed(&cpu, "usage_usec");
        usage.cpu_user_us = keyed(&cpu, "user_usec");
        usage.cpu_system_us = keyed(&cpu, "system_usec");
        usage.cpu_throttled_us = keyed(&cpu, "throttled_usec");
        usage.memory = number("memory.current");
        // Since Linux 5.19.
        usage.memory_peak = number("memory.peak");
        usage.memory_limit = read("memory.max").trim().parse().unwrap_or(u64::MAX);
        usage.memory_anon = keyed(&memory, "anon");
        usage.memory_inactive_file = keyed(&memory, "inactive_file");
        usage.page_faults = keyed(&memory, "pgfault");
        usage.major_page_faults = keyed(&memory, "pgmajfault");
        usage
    }
}

fn keyed(text: &str, key: &str) -> u64 {
    let values = text.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| *name == key);
    values.filter_map(|(_, value)| value.parse().ok()).next().unwrap_or(0)
}

/// VmRSS of /proc/PID/status, which counts in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    kib.saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_from_the_cgroups_files() {
        let mount = tempfile::tempdir().unwrap();
        std::fs::write(mount.path().join("cgroup.controllers"), "").unwrap();
        let cgroup = Cgroup::create_in(mount.path(), "husk/a".as_ref()).unwrap();
        for (file, text) in [
            ("cpu.stat", "usage_usec 10\nuser_usec 6\nsystem_usec 4\nthrottled_usec 3\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 100\nfile 200\ninactive_file 30\npgfault 4\npgmajfault 2\n"),
        ] {
            std::fs::write(mount.path().join("husk/a").join(file), text).unwrap();
        }
        let usage = HostUsage::read(Some(&cgroup), std::process::id());
        assert_eq!((usage.cpu_us, usage.cpu_throttled_us, usage.memory, usage.memory_anon), (10, 3, 4096, 100));
        assert_eq!((usage.memory_inactive_file, usage.page_faults, usage.major_page_faults), (30, 4, 2));
        assert_eq!((usage.memory_limit, usage.memory_peak), (u64::MAX, 0));
        assert!(usage.vmm_resident > 0);
    }

    #[test]
    fn a_pod_without_a_cgroup_still_has_a_vmm() {
        let usage = HostUsage::read(None, std::process::id());
        assert!(usage.vmm_resident > 0 && usage.cgroup.as_os_str().is_empty());
    }
}
