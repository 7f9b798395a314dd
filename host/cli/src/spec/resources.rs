//! Limits: of one container, and of the VM that holds all containers of a pod.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::pods::plan::{ContainerPlan, Kind, Limits};

/// CPU quotas are given per this many microseconds, the kernel's default.
pub(crate) const CPU_PERIOD_US: u64 = 100_000;
/// The kernel takes no quota below one millisecond.
const MIN_QUOTA_US: i64 = 1_000;
/// Less than this does not even start a container's first process.
pub(crate) const MIN_MEMORY: u64 = 4 << 20;
/// What a container without a limit adds to its pod's VM; of one such container alone the shim knows the size.
pub(crate) const UNLIMITED_MEMORY: u64 = 512 << 20;
/// cgroup v1's bounds of cpu.shares, which OCI specs still count in.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Thousandths of a CPU as OCI's relative weight: 1024 for one CPU.
pub(crate) fn shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(*SHARES.start(), *SHARES.end())
}

/// Thousandths of a CPU as microseconds in each [`CPU_PERIOD_US`].
pub(crate) fn quota_us(milli: u64) -> i64 {
    i64::try_from(milli.saturating_mul(CPU_PERIOD_US) / 1000).unwrap_or(i64::MAX).max(MIN_QUOTA_US)
}

/// `linux.resources` of a container.
pub(super) fn container(limits: &Limits) -> LinuxResources {
    let mut resources = LinuxResources::default();
    if let Some(bytes) = limits.memory.and_then(|b| i64::try_from(b).ok()) {
        let mut memory = LinuxMemory::default();
        // Memory and swap together: a container gets no swap.
        memory.set_limit(Some(bytes)).set_swap(Some(bytes));
        resources.set_memory(Some(memory));
    }
    if limits.cpu_milli.is_some() || limits.cpu_shares.is_some() {
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(limits.cpu_shares);
        if let Some(milli) = limits.cpu_milli {
            cpu.set_quota(Some(quota_us(milli))).set_period(Some(CPU_PERIOD_US));
        }
        resources.set_cpu(Some(cpu));
    }
    if let Some(limit) = limits.pids {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    resources
}

/// Limits that `husk update` changes; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    pub(crate) memory_reservation: Option<u64>,
    /// Thousandths of a CPU.
    pub(crate) cpu_milli: Option<u64>,
    /// Microseconds in a period; -1 = no limit.
    pub(crate) cpu_quota: Option<i64>,
    pub(crate) cpu_period: Option<u64>,
    pub(crate) cpu_shares: Option<u64>,
    pub(crate) cpuset: Option<String>,
    /// -1 = no limit.
    pub(crate) pids: Option<i64>,
}

impl Change {
    /// Writes them over those of `resources`.
    pub(crate) fn apply(&self, resources: &mut LinuxResources) {
        let bytes = |value: Option<u64>| value.and_then(|bytes| i64::try_from(bytes).ok());
        if self.memory.is_some() || self.memory_reservation.is_some() {
            let mut memory = *resources.memory();
            let memory = memory.get_or_insert_default();
            if let Some(limit) = bytes(self.memory) {
                memory.set_limit(Some(limit)).set_swap(Some(limit));
            }
            if let Some(reservation) = bytes(self.memory_reservation) {
                memory.set_reservation(Some(reservation));
            }
            resources.set_memory(Some(*memory));
        }
        let mut cpu = resources.cpu().clone().unwrap_or_default();
        if let Some(milli) = self.cpu_milli {
            cpu.set_quota(Some(quota_us(milli))).set_period(Some(CPU_PERIOD_US));
        }
        if self.cpu_quota.is_some() {
            cpu.set_quota(self.cpu_quota);
        }
        if self.cpu_period.is_some() {
            cpu.set_period(self.cpu_period);
        }
        if self.cpu_shares.is_some() {
            cpu.set_shares(self.cpu_shares);
        }
        if self.cpuset.is_some() {
            cpu.set_cpus(self.cpuset.clone());
        }
        if cpu != LinuxCpu::default() {
            resources.set_cpu(Some(cpu));
        }
        if let Some(limit) = self.pids {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            resources.set_pids(Some(pids));
        }
    }
}

/// Memory of the pod's VM in bytes, less the shim's fixed overhead; `None` leaves the choice to the shim.
///
/// By Kubernetes' rule for a pod's effective limit: what app containers and sidecars need together, or what one init
/// container and the sidecars before it need, whichever is more.
pub(super) fn pod_memory(containers: &[ContainerPlan]) -> Option<u64> {
    if containers.iter().all(|c| c.limits.memory.is_none()) && containers.len() <= 1 {
        return None;
    }
    Some(effective(containers.iter().map(|c| (c.kind, c.limits.memory.unwrap_or(UNLIMITED_MEMORY)))))
}

/// The pod's weight among others; `None` when no container says how much it needs.
pub(super) fn pod_cpu_shares(containers: &[ContainerPlan]) -> Option<u64> {
    let wanted = effective(containers.iter().map(|c| (c.kind, c.limits.cpu_shares.unwrap_or_default())));
    (wanted > 0).then(|| wanted.clamp(*SHARES.start(), *SHARES.end()))
}

/// CPU quota of the pod in microseconds per [`CPU_PERIOD_US`]: its own, or the sum; `None` when some container has no
/// limit.
pub(super) fn pod_cpu_quota(pod: &Limits, containers: &[ContainerPlan]) -> Option<i64> {
    if let Some(milli) = pod.cpu_milli {
        return Some(quota_us(milli));
    }
    if containers.is_empty() || containers.iter().any(|c| c.limits.cpu_milli.is_none()) {
        return None;
    }
    Some(quota_us(effective(containers.iter().map(|c| (c.kind, c.limits.cpu_milli.unwrap_or_default())))))
}

/// What containers need of their pod, in the order of their start.
pub(crate) fn effective(containers: impl Iterator<Item = (Kind, u64)>) -> u64 {
    let (mut running, mut peak) = (0u64, 0u64);
    for (kind, need) in containers {
        match kind {
            Kind::Init => peak = peak.max(running.saturating_add(need)),
            Kind::Sidecar | Kind::App | Kind::Ephemeral => running = running.saturating_add(need),
        }
    }
    peak.max(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container_of(kind: Kind, mib: Option<u64>) -> ContainerPlan {
        let limits = Limits { memory: mib.map(|m| m << 20), ..Limits::default() };
        ContainerPlan { kind, limits, ..ContainerPlan::default() }
    }

    #[test]
    fn a_pod_needs_the_sum_of_its_containers_or_its_largest_init_container() {
        let app = |mib| container_of(Kind::App, Some(mib));
        assert_eq!(pod_memory(&[app(256), app(128)]), Some(384 << 20));
        assert_eq!(pod_memory(&[container_of(Kind::Init, Some(600)), app(256), app(128)]), Some(600 << 20));
        let with_sidecar = [container_of(Kind::Sidecar, Some(100)), container_of(Kind::Init, Some(300)), app(250)];
        assert_eq!(pod_memory(&with_sidecar), Some(400 << 20));
    }

    #[test]
    fn a_container_without_a_limit_counts_with_the_default() {
        assert_eq!(pod_memory(&[container_of(Kind::App, None)]), None);
        assert_eq!(pod_memory(&[container_of(Kind::App, None), container_of(Kind::App, Some(128))]), Some(640 << 20));
    }

    #[test]
    fn cpu_is_a_quota_of_each_period() {
        let half = container(&Limits { cpu_milli: Some(500), ..Limits::default() });
        let cpu = half.cpu().clone().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(50_000), Some(100_000)));
        let tiny = container(&Limits { cpu_milli: Some(1), ..Limits::default() });
        assert_eq!(tiny.cpu().clone().unwrap().quota(), Some(1000));
        assert_eq!((shares(1000), shares(1), shares(1_000_000)), (1024, 2, 262_144));
    }

    #[test]
    fn a_pods_cpus_are_limited_only_when_every_container_is() {
        let limited = |milli| ContainerPlan {
            limits: Limits { cpu_milli: milli, ..Limits::default() },
            ..ContainerPlan::default()
        };
        let none = Limits::default();
        let own = Limits { cpu_milli: Some(250), ..none };
        assert_eq!(pod_cpu_quota(&none, &[limited(Some(500)), limited(Some(1500))]), Some(200_000));
        assert_eq!(pod_cpu_quota(&none, &[limited(Some(500)), limited(None)]), None);
        assert_eq!(pod_cpu_quota(&none, &[]), None);
        assert_eq!(pod_cpu_quota(&own, &[limited(None)]), Some(25_000));
    }

    #[test]
    fn a_pod_weighs_what_its_containers_weigh() {
        let weighing = |shares| ContainerPlan {
            limits: Limits { cpu_shares: shares, ..Limits::default() },
            ..ContainerPlan::default()
        };
        assert_eq!(pod_cpu_shares(&[weighing(Some(512)), weighing(Some(256)), weighing(None)]), Some(768));
        assert_eq!(pod_cpu_shares(&[weighing(None)]), None);
    }
}
