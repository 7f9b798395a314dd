//! CRI's resources as the runtime specification has them.

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources};

use crate::api::LinuxContainerResources;

/// What a container's cgroup is to enforce. A number that is 0 says nothing, as with kubelet.
///
/// `cpuset_cpus` and `cpuset_mems` name CPUs of the node and are not for the guest: the VM runs in the pod's cgroup,
/// where kubelet's CPU manager has its say. Swap does not exist in the guest. A limit of 0 for huge pages is what a
/// guest without such pages enforces anyway.
#[must_use]
pub fn resources(wanted: &LinuxContainerResources) -> LinuxResources {
    let mut resources = LinuxResources::default();
    if wanted.memory_limit_in_bytes > 0 {
        let bytes = Some(wanted.memory_limit_in_bytes);
        let mut memory = LinuxMemory::default();
        memory.set_limit(bytes).set_swap(bytes);
        resources.set_memory(Some(memory));
    }
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let (shares, period) = (positive(wanted.cpu_shares), positive(wanted.cpu_period));
    let quota = Some(wanted.cpu_quota).filter(|quota| *quota != 0);
    if shares.is_some() || period.is_some() || quota.is_some() {
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(shares).set_period(period).set_quota(quota);
        resources.set_cpu(Some(cpu));
    }
    let pages: Vec<_> = wanted
        .hugepage_limits
        .iter()
        .filter(|limit| limit.limit > 0)
        .map(|limit| {
            let mut page = LinuxHugepageLimit::default();
            page.set_page_size(limit.page_size.clone()).set_limit(i64::try_from(limit.limit).unwrap_or(i64::MAX));
            page
        })
        .collect();
    if !pages.is_empty() {
        resources.set_hugepage_limits(Some(pages));
    }
    if !wanted.unified.is_empty() {
        resources.set_unified(Some(wanted.unified.clone()));
    }
    resources
}

/// What is in force after an update: what it says, and what was before where it says nothing.
#[must_use]
pub fn merged(before: &LinuxContainerResources, update: &LinuxContainerResources) -> LinuxContainerResources {
    let number = |before: i64, new: i64| if new == 0 { before } else { new };
    let text = |before: &String, new: &String| if new.is_empty() { before.clone() } else { new.clone() };
    let mut unified = before.unified.clone();
    unified.extend(update.unified.clone());
    LinuxContainerResources {
        cpu_period: number(before.cpu_period, update.cpu_period),
        cpu_quota: number(before.cpu_quota, update.cpu_quota),
        cpu_shares: number(before.cpu_shares, update.cpu_shares),
        memory_limit_in_bytes: number(before.memory_limit_in_bytes, update.memory_limit_in_bytes),
        oom_score_adj: number(before.oom_score_adj, update.oom_score_adj),
        cpuset_cpus: text(&before.cpuset_cpus, &update.cpuset_cpus),
        cpuset_mems: text(&before.cpuset_mems, &update.cpuset_mems),
        hugepage_limits: if update.hugepage_limits.is_empty() {
            before.hugepage_limits.clone()
        } else {
            update.hugepage_limits.clone()
        },
        unified,
        memory_swap_limit_in_bytes: number(before.memory_swap_limit_in_bytes, update.memory_swap_limit_in_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::HugepageLimit;

    #[test]
    fn the_nodes_cpus_and_empty_pools_of_huge_pages_are_not_the_guests() {
        let wanted = LinuxContainerResources {
            cpuset_cpus: "0-63".into(),
            cpu_quota: -1,
            hugepage_limits: vec![HugepageLimit { page_size: "1GB".into(), limit: 0 }],
            ..LinuxContainerResources::default()
        };
        let resources = resources(&wanted);
        assert_eq!(resources.cpu().as_ref().unwrap().cpus(), &None);
        assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(-1));
        assert_eq!(resources.hugepage_limits(), &None);
        assert_eq!(resources.memory(), &None);
    }

    #[test]
    fn an_update_leaves_what_it_does_not_name() {
        let before = LinuxContainerResources {
            cpu_shares: 512,
            memory_limit_in_bytes: 1 << 20,
            ..LinuxContainerResources::default()
        };
        let update = LinuxContainerResources { memory_limit_in_bytes: 2 << 20, ..LinuxContainerResources::default() };
        let after = merged(&before, &update);
        assert_eq!((after.cpu_shares, after.memory_limit_in_bytes), (512, 2 << 20));
    }
}
