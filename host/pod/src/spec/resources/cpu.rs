//! `linux.resources.cpu`.

use husk_agent_api::v1;
use oci_spec::runtime::LinuxCpu;

use super::{CGROUP_V1, SpecError};

pub(super) fn cpu(wanted: &LinuxCpu, limits: &mut v1::Resources) -> Result<(), SpecError> {
    let unwanted = [
        ("linux.resources.cpu.realtimeRuntime", wanted.realtime_runtime().is_some_and(|value| value != 0)),
        ("linux.resources.cpu.realtimePeriod", wanted.realtime_period().is_some_and(|value| value != 0)),
    ];
    if let Some((field, _)) = unwanted.into_iter().find(|(_, set)| *set) {
        return Err(SpecError::unsupported(field, "(set)", CGROUP_V1));
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
    limits.cpu_burst_us = wanted.burst();
    limits.cpu_idle = match wanted.idle() {
        None => None,
        Some(idle @ (0 | 1)) => Some(idle == 1),
        Some(other) => return Err(SpecError::invalid("linux.resources.cpu.idle", other.to_string(), "it is 0 or 1")),
    };
    limits.cpuset_cpus = list("linux.resources.cpu.cpus", wanted.cpus().as_ref())?;
    limits.cpuset_mems = list("linux.resources.cpu.mems", wanted.mems().as_ref())?;
    Ok(())
}

/// A list of CPUs or memory nodes of the guest, which knows what it has; empty is nothing said.
fn list(field: &str, text: Option<&String>) -> Result<Option<String>, SpecError> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) if !is_list(text) => {
            Err(SpecError::invalid(field, text, "it is a list of numbers and ranges such as 0-2,4"))
        }
        text => Ok(text.cloned()),
    }
}

/// cgroup v1's shares (2 to 262144, default 1024) as cgroup v2's weight (1 to 10000, default 100).
///
/// runc's formula since 1.3.2 (`ConvertCPUSharesToCgroupV2Value`): a quadratic function in the exponent that meets
/// minimum, default and maximum of both scales. The earlier straight line gave the default of 1024 shares a weight of
/// 39, less than that of any process without a setting.
pub(crate) fn weight(shares: u64) -> u64 {
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
pub(super) fn is_list(text: &str) -> bool {
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
