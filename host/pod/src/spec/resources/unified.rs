//! `linux.resources.unified`: control files of cgroup v2 by their names. They override what the other words said.

use std::collections::HashMap;

use husk_agent_api::v1;

use super::SpecError;
use super::cpu::is_list;
use super::io::{Throttle, io_max};

/// Controllers that the guest's kernel hands to containers.
const CONTROLLERS: [&str; 7] = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids"];
/// Longest name and value of a file, in bytes.
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 1024;

/// Files whose meaning other parts of the pod know are read here; the guest's kernel reads the others.
pub(super) fn unified(
    files: &HashMap<String, String>,
    limits: &mut v1::Resources,
    throttles: &mut Vec<Throttle>,
) -> Result<(), SpecError> {
    for (name, value) in files {
        let field = format!("linux.resources.unified[{}]", crate::spec::shown(name));
        check(&field, name, value)?;
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
            "cpu.idle" => match value.as_str() {
                "0" | "1" => limits.cpu_idle = Some(value == "1"),
                _ => return Err(SpecError::invalid(field, value, "it is 0 or 1")),
            },
            "cpu.max" => cpu_max(&field, value, limits)?,
            "cpu.max.burst" => {
                let burst = value.parse().map_err(|_| SpecError::invalid(field, value, "it is a number"))?;
                limits.cpu_burst_us = Some(burst);
            }
            "cpuset.cpus" | "cpuset.mems" if !is_list(value) => {
                return Err(SpecError::invalid(field, value, "it is a list such as 0-2,4"));
            }
            "cpuset.cpus" => limits.cpuset_cpus = Some(value.clone()),
            "cpuset.mems" => limits.cpuset_mems = Some(value.clone()),
            "io.max" => io_max(&field, value, throttles)?,
            "io.weight" if value.contains(':') => {
                let why = "weights are set for all disks of the pod at once, as \"default N\"";
                return Err(SpecError::unsupported(field, value, why));
            }
            "io.latency" => {
                return Err(SpecError::unsupported(field, value, "it names a device of the host; use io.max"));
            }
            _ => {
                limits.files.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(())
}

/// That it is a file of a controller, and nothing that could be another path or a second write.
fn check(field: &str, name: &str, value: &str) -> Result<(), SpecError> {
    let controller = name.split_once('.').map(|(controller, _)| controller).unwrap_or_default();
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if !CONTROLLERS.contains(&controller) || !plain || name.len() > MAX_NAME || name.contains("..") {
        let why = "only files of cpu, cpuset, hugetlb, io, memory, misc and pids can be set";
        return Err(SpecError::unsupported(field, value, why));
    }
    if value.len() > MAX_VALUE || value.contains('\0') {
        return Err(SpecError::invalid(field, value, "a value has at most 1024 bytes and no NUL"));
    }
    Ok(())
}

fn cpu_max(field: &str, value: &str, limits: &mut v1::Resources) -> Result<(), SpecError> {
    let (quota, period) = value.split_once(' ').map_or((value, None), |(quota, period)| (quota, Some(period)));
    limits.cpu_quota_us = Some(number_or_max(field, quota)?);
    if let Some(period) = period {
        match period.parse() {
            Ok(period @ 1000..=1_000_000) => limits.cpu_period_us = Some(period),
            _ => return Err(SpecError::invalid(field, value, "the period's range is 1000 to 1000000")),
        }
    }
    Ok(())
}

fn number_or_max(field: &str, value: &str) -> Result<i64, SpecError> {
    if value == "max" {
        return Ok(-1);
    }
    let number = value.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| SpecError::invalid(field, value, "it is a number or \"max\""))
}
