//! `linux.resources`: OCI's cgroup v1 words turned into cgroup v2 limits.
//!
//! The conversions are those of runc (github.com/opencontainers/cgroups, `utils.go`), so that a limit means the same
//! under every runtime.

use std::collections::HashMap;

use husk_agent_api::v1;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::devices::check_rules;
use super::{SpecError, refuse_members, refuse_some};

/// Limits as the agent sets them. `blocks` are the block devices that the rules may allow.
pub(crate) fn resources(wanted: &LinuxResources, blocks: &[(i64, i64)]) -> Result<v1::Resources, SpecError> {
    refuse(wanted)?;
    check_rules(wanted.devices().as_deref().unwrap_or_default(), blocks)?;
    let mut limits = v1::Resources::default();
    if let Some(wanted) = wanted.memory() {
        memory(wanted, &mut limits)?;
    }
    if let Some(wanted) = wanted.cpu() {
        cpu(wanted, &mut limits)?;
    }
    limits.pids_max = match wanted.pids().map(|pids| pids.limit()) {
        None | Some(0) => None,
        Some(limit) => Some(limit.max(-1)),
    };
    if let Some(unified) = wanted.unified() {
        unified_limits(unified, &mut limits)?;
    }
    Ok(limits)
}

fn refuse(wanted: &LinuxResources) -> Result<(), SpecError> {
    if let Some(io) = wanted.block_io() {
        let lists = [io.throttle_read_bps_device(), io.throttle_write_bps_device(), io.throttle_read_iops_device()];
        let empty = io.weight().is_none_or(|weight| weight == 0)
            && io.leaf_weight().is_none_or(|weight| weight == 0)
            && io.weight_device().as_ref().is_none_or(Vec::is_empty)
            && io.throttle_write_iops_device().as_ref().is_none_or(Vec::is_empty)
            && lists.iter().all(|list| list.as_ref().is_none_or(Vec::is_empty));
        if !empty {
            return Err(SpecError::unsupported(
                "linux.resources.blockIO",
                "(set)",
                "I/O limits are not set in the guest",
            ));
        }
    }
    refuse_members(
        "linux.resources.hugepageLimits",
        wanted.hugepage_limits().as_ref(),
        "the guest has no huge pages of its own",
    )?;
    refuse_members("linux.resources.rdma", wanted.rdma().as_ref(), "the guest has no RDMA devices")?;
    if let Some(network) = wanted.network() {
        refuse_some("linux.resources.network.classID", network.class_id().filter(|id| *id != 0).as_ref(), CGROUP_V1)?;
        refuse_members("linux.resources.network.priorities", network.priorities().as_ref(), CGROUP_V1)?;
    }
    Ok(())
}

const CGROUP_V1: &str = "it exists only in cgroup v1, and the guest has cgroup v2";

fn memory(wanted: &LinuxMemory, limits: &mut v1::Resources) -> Result<(), SpecError> {
    let unwanted = [
        ("linux.resources.memory.kernel", wanted.kernel().is_some_and(|value| value > 0)),
        ("linux.resources.memory.kernelTCP", wanted.kernel_tcp().is_some_and(|value| value > 0)),
        ("linux.resources.memory.swappiness", wanted.swappiness().is_some()),
        ("linux.resources.memory.disableOOMKiller", wanted.disable_oom_killer() == Some(true)),
        ("linux.resources.memory.useHierarchy", wanted.use_hierarchy() == Some(false)),
    ];
    if let Some((field, _)) = unwanted.into_iter().find(|(_, set)| *set) {
        return Err(SpecError::unsupported(field, "(set)", CGROUP_V1));
    }
    if wanted.check_before_update() == Some(true) {
        let why = "the kernel cannot compare usage and limit in one step; leave it out";
        return Err(SpecError::unsupported("linux.resources.memory.checkBeforeUpdate", "true", why));
    }
    limits.memory_max = limit("linux.resources.memory.limit", wanted.limit())?;
    limits.memory_low = limit("linux.resources.memory.reservation", wanted.reservation())?;
    limits.memory_swap_max = swap_max(wanted.swap(), wanted.limit())?;
    Ok(())
}

/// 0 leaves the kernel's value alone, -1 is no limit.
fn limit(field: &str, value: Option<i64>) -> Result<Option<i64>, SpecError> {
    match value {
        None | Some(0) => Ok(None),
        Some(value) if value < -1 => Err(SpecError::invalid(field, value.to_string(), "use -1 for no limit")),
        Some(value) => Ok(Some(value)),
    }
}

/// OCI's swap is memory and swap together; cgroup v2's `memory.swap.max` is swap alone.
/// (runc: `ConvertMemorySwapToCgroupV2Value`.)
fn swap_max(swap: Option<i64>, memory: Option<i64>) -> Result<Option<i64>, SpecError> {
    const FIELD: &str = "linux.resources.memory.swap";
    let memory = memory.unwrap_or(0);
    match swap.unwrap_or(0) {
        // Unlimited memory without a word on swap means unlimited swap.
        0 => Ok((memory == -1).then_some(-1)),
        -1 => Ok(Some(-1)),
        swap if swap < -1 => Err(SpecError::invalid(FIELD, swap.to_string(), "use -1 for no limit")),
        swap if memory <= 0 => {
            Err(SpecError::invalid(FIELD, swap.to_string(), "it needs linux.resources.memory.limit beside it"))
        }
        swap => match swap.checked_sub(memory) {
            Some(difference) if difference >= 0 => Ok(Some(difference)),
            _ => {
                let why = format!("it counts memory and swap together, so it is at least memory.limit ({memory})");
                Err(SpecError::invalid(FIELD, swap.to_string(), why))
            }
        },
    }
}

fn cpu(wanted: &LinuxCpu, limits: &mut v1::Resources) -> Result<(), SpecError> {
    let unwanted = [
        ("linux.resources.cpu.realtimeRuntime", wanted.realtime_runtime().is_some_and(|value| value != 0), CGROUP_V1),
        ("linux.resources.cpu.realtimePeriod", wanted.realtime_period().is_some_and(|value| value != 0), CGROUP_V1),
        (
            "linux.resources.cpu.burst",
            wanted.burst().is_some_and(|value| value != 0),
            "bursts are not set in the guest",
        ),
        ("linux.resources.cpu.idle", wanted.idle().is_some_and(|value| value != 0), "cpu.idle is not set in the guest"),
    ];
    if let Some((field, _, why)) = unwanted.into_iter().find(|(_, set, _)| *set) {
        return Err(SpecError::unsupported(field, "(set)", why));
    }
    if let Some(mems) = wanted.mems().as_ref().filter(|mems| !matches!(mems.as_str(), "" | "0")) {
        return Err(SpecError::unsupported("linux.resources.cpu.mems", mems, "the guest has one memory node, 0"));
    }
    limits.cpu_weight = wanted.shares().filter(|shares| *shares != 0).map(weight);
    limits.cpu_quota_us = match wanted.quota() {
        None | Some(0) => None,
        Some(quota @ 1..=999) => {
            let why = "the kernel accepts quotas from 1000 microseconds";
            return Err(SpecError::invalid("linux.resources.cpu.quota", quota.to_string(), why));
        }
        Some(quota) => Some(quota.max(-1)),
    };
    limits.cpu_period_us = match wanted.period() {
        None | Some(0) => None,
        Some(period @ 1000..=1_000_000) => Some(period),
        Some(period) => {
            let why = "the kernel accepts periods from 1000 to 1000000 microseconds";
            return Err(SpecError::invalid("linux.resources.cpu.period", period.to_string(), why));
        }
    };
    limits.cpuset_cpus = wanted.cpus().clone().filter(|cpus| !cpus.is_empty());
    match &limits.cpuset_cpus {
        Some(cpus) if !is_cpu_list(cpus) => {
            let why = "it is a list of CPU numbers and ranges such as 0-2,4";
            Err(SpecError::invalid("linux.resources.cpu.cpus", cpus, why))
        }
        _ => Ok(()),
    }
}

/// cgroup v1's shares (2 to 262144, default 1024) as cgroup v2's weight (1 to 10000, default 100).
///
/// runc's formula since 1.3.2 (`ConvertCPUSharesToCgroupV2Value`): a quadratic function in the exponent that meets
/// minimum, default and maximum of both scales. The earlier straight line gave the default of 1024 shares a weight of
/// 39, less than that of any process without a setting.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[expect(clippy::cast_precision_loss, reason = "less than 2^18")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10000, and `as` saturates")]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// The kernel's list format (cpuset.cpus), numbers up to four digits.
fn is_cpu_list(text: &str) -> bool {
    let number = |text: &str| {
        let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    text.len() <= 1024
        && text.split(',').all(|part| match part.split_once('-') {
            None => number(part).is_some(),
            Some((first, last)) => matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last),
        })
}

/// The cgroup v2 files that the agent knows; they override what the v1 words said.
fn unified_limits(files: &HashMap<String, String>, limits: &mut v1::Resources) -> Result<(), SpecError> {
    for (name, value) in files {
        let field = format!("linux.resources.unified[{}]", super::shown(name));
        match name.as_str() {
            "memory.max" => limits.memory_max = Some(number_or_max(&field, value)?),
            "memory.low" => limits.memory_low = Some(number_or_max(&field, value)?),
            "memory.high" => limits.memory_high = Some(number_or_max(&field, value)?),
            "memory.swap.max" => limits.memory_swap_max = Some(number_or_max(&field, value)?),
            "pids.max" => limits.pids_max = Some(number_or_max(&field, value)?),
            "cpu.weight" => match value.parse() {
                Ok(weight @ 1..=10_000) => limits.cpu_weight = Some(weight),
                _ => return Err(SpecError::invalid(field, value, "the range is 1 to 10000")),
            },
            "cpu.max" => {
                let (quota, period) = value.split_once(' ').map_or((value.as_str(), None), |(q, p)| (q, Some(p)));
                limits.cpu_quota_us = Some(number_or_max(&field, quota)?);
                if let Some(period) = period {
                    match period.parse() {
                        Ok(period @ 1000..=1_000_000) => limits.cpu_period_us = Some(period),
                        _ => return Err(SpecError::invalid(field, value, "the period's range is 1000 to 1000000")),
                    }
                }
            }
            "cpuset.cpus" if is_cpu_list(value) => limits.cpuset_cpus = Some(value.clone()),
            "cpuset.cpus" => return Err(SpecError::invalid(field, value, "it is a list such as 0-2,4")),
            _ => return Err(SpecError::unsupported(field, value, "this file is not set in the guest")),
        }
    }
    Ok(())
}

fn number_or_max(field: &str, value: &str) -> Result<i64, SpecError> {
    if value == "max" {
        return Ok(-1);
    }
    value
        .parse()
        .ok()
        .filter(|number| *number >= 0)
        .ok_or_else(|| SpecError::invalid(field, value, "it is a number or \"max\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn parse(json: Value) -> Result<v1::Resources, SpecError> {
        resources(&serde_json::from_value(json).unwrap(), &[])
    }

    #[test]
    fn no_limits_leave_everything_alone() {
        assert_eq!(parse(json!({})).unwrap(), v1::Resources::default());
        let zeros = json!({"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0, "period": 0}, "pids": {"limit": 0}});
        assert_eq!(parse(zeros).unwrap(), v1::Resources::default());
    }

    #[test]
    fn memory_limits_are_translated() {
        let limits =
            parse(json!({"memory": {"limit": 268_435_456, "reservation": 1024, "swap": 268_435_456}})).unwrap();
        assert_eq!(limits.memory_max, Some(268_435_456));
        assert_eq!(limits.memory_low, Some(1024));
        assert_eq!(limits.memory_swap_max, Some(0));
    }

    #[test]
    fn swap_counts_memory_and_swap_together() {
        assert_eq!(swap_max(Some(300), Some(100)).unwrap(), Some(200));
        assert_eq!(swap_max(Some(-1), Some(100)).unwrap(), Some(-1));
        assert_eq!(swap_max(None, Some(100)).unwrap(), None);
        assert_eq!(swap_max(None, Some(-1)).unwrap(), Some(-1));
        assert!(swap_max(Some(50), Some(100)).is_err());
        assert!(swap_max(Some(50), None).is_err());
        assert!(swap_max(Some(i64::MIN), Some(i64::MAX)).is_err());
    }

    #[test]
    fn shares_become_weights_as_in_runc() {
        for (shares, expected) in [(2, 1), (1024, 100), (262_144, 10_000), (1, 1), (u64::MAX, 10_000), (512, 59)] {
            assert_eq!(weight(shares), expected, "{shares} shares");
        }
    }

    #[test]
    fn cpu_limits_are_translated() {
        let limits = parse(json!({"cpu": {"quota": 50_000, "period": 100_000, "cpus": "0-1,3"}})).unwrap();
        assert_eq!((limits.cpu_quota_us, limits.cpu_period_us), (Some(50_000), Some(100_000)));
        assert_eq!(limits.cpuset_cpus.as_deref(), Some("0-1,3"));
        assert_eq!(parse(json!({"cpu": {"quota": -1}})).unwrap().cpu_quota_us, Some(-1));
    }

    #[test]
    fn impossible_cpu_limits_are_refused() {
        for bad in [
            json!({"quota": 999}),
            json!({"period": 10}),
            json!({"period": 2_000_000}),
            json!({"cpus": "3-1"}),
            json!({"cpus": "0,,1"}),
            json!({"cpus": "+1"}),
            json!({"mems": "1"}),
            json!({"burst": 5}),
            json!({"idle": 1}),
            json!({"realtimeRuntime": 5}),
        ] {
            assert!(parse(json!({"cpu": bad})).is_err(), "{bad}");
        }
    }

    #[test]
    fn process_limits_are_translated() {
        assert_eq!(parse(json!({"pids": {"limit": 100}})).unwrap().pids_max, Some(100));
        assert_eq!(parse(json!({"pids": {"limit": -1}})).unwrap().pids_max, Some(-1));
    }

    #[test]
    fn what_only_cgroup_v1_has_is_refused() {
        for bad in [
            json!({"memory": {"kernel": 1}}),
            json!({"memory": {"swappiness": 60}}),
            json!({"memory": {"disableOOMKiller": true}}),
            json!({"memory": {"checkBeforeUpdate": true}}),
            json!({"network": {"classID": 5}}),
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}),
            json!({"rdma": {"mlx5": {"hcaHandles": 1}}}),
            json!({"blockIO": {"weight": 10}}),
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]}}),
        ] {
            assert!(matches!(parse(bad.clone()), Err(SpecError::Unsupported { .. })), "{bad}");
        }
        assert!(parse(json!({"blockIO": {}, "hugepageLimits": [], "memory": {"disableOOMKiller": false}})).is_ok());
    }

    #[test]
    fn unified_files_override_and_unknown_ones_are_refused() {
        let limits =
            parse(json!({"pids": {"limit": 5}, "unified": {"pids.max": "max", "cpu.max": "max 50000"}})).unwrap();
        assert_eq!((limits.pids_max, limits.cpu_quota_us, limits.cpu_period_us), (Some(-1), Some(-1), Some(50_000)));
        assert_eq!(
            parse(json!({"unified": {"memory.oom.group": "1"}})).unwrap_err().field(),
            "linux.resources.unified[memory.oom.group]"
        );
        assert!(parse(json!({"unified": {"cpu.weight": "0"}})).is_err());
        assert!(parse(json!({"unified": {"memory.max": "-5"}})).is_err());
    }

    proptest! {
        #[test]
        fn more_shares_never_weigh_less(a in 0_u64..300_000, b in 0_u64..300_000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(weight(low) <= weight(high));
            prop_assert!((1..=10_000).contains(&weight(a)));
        }

        #[test]
        fn no_swap_value_overflows(swap in any::<Option<i64>>(), memory in any::<Option<i64>>()) {
            if let Ok(Some(value)) = swap_max(swap, memory) {
                prop_assert!(value >= -1);
            }
        }
    }
}
