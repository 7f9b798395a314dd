//! What a pod may take of the host: limits of its cgroup, and its VMM's place in the queue of the OOM killer.

use super::cgroup::{Cgroup, CgroupError};
use crate::spec::CpuLimit;

/// What the VMM may need beside the guest's memory, in bytes: its own pages, the host's tables of the guest's memory, and
/// the files and names that the guest holds of shared directories, of which there may be a hundred thousand. A bound, not
/// what it usually takes (some 20 MiB).
pub const VMM_OVERHEAD: u64 = 256 * 1024 * 1024;

/// Limits of a pod's cgroup on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostLimits {
    /// Bytes of guest and VMM together.
    pub(crate) memory: u64,
    /// None: no limit.
    pub(crate) cpu: Option<CpuLimit>,
    /// cgroup v2's weight, 1 to 10000.
    pub(crate) cpu_weight: Option<u64>,
    /// Of the VMM, -1000 to 1000; none: its starter's.
    pub(crate) oom_score_adj: Option<i32>,
}

impl HostLimits {
    /// For a VM of so many MiB.
    pub(crate) fn memory_of(vm_mib: u64) -> u64 {
        vm_mib.saturating_mul(1024 * 1024).saturating_add(VMM_OVERHEAD)
    }

    /// Those that hold from the beginning.
    pub(crate) fn apply(&self, cgroup: &Cgroup) -> Result<(), CgroupError> {
        cgroup.set("memory.max", &self.memory.to_string())?;
        match self.cpu_weight {
            Some(weight) => cgroup.set("cpu.weight", &weight.to_string()),
            None => Ok(()),
        }
    }

    /// The CPU limit, once the pod has been started: a small one would make a boot of a second into one of minutes.
    pub(crate) fn apply_cpu(&self, cgroup: &Cgroup) -> Result<(), CgroupError> {
        if self.cpu.is_some() { set_cpu(cgroup, self.cpu) } else { Ok(()) }
    }

    /// Tells the host's kernel how dear the VMM is when memory is short.
    pub(crate) fn rank(&self, vmm: u32) {
        let Some(score) = self.oom_score_adj else { return };
        if let Err(error) = std::fs::write(format!("/proc/{vmm}/oom_score_adj"), score.to_string()) {
            tracing::warn!(score, %error, "the VMM's oom_score_adj is not set");
        }
    }
}

/// Limits the CPU time of a cgroup, or no longer does.
pub(crate) fn set_cpu(cgroup: &Cgroup, limit: Option<CpuLimit>) -> Result<(), CgroupError> {
    let value = limit.map_or("max".to_owned(), |limit| format!("{} {}", limit.quota_us, limit.period_us));
    cgroup.set("cpu.max", &value)
}
