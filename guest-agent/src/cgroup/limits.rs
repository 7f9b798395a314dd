//! Limits of a pod or container, as control-file writes.

use husk_agent_api::v1::Resources;

use super::Cgroup;
use crate::error::{Error, Result};

/// cpu.max's period when only a quota is given: the kernel's default, microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;

fn bound(field: &str, value: i64) -> Result<String> {
    match value {
        -1 => Ok("max".to_owned()),
        0.. => Ok(value.to_string()),
        _ => Err(Error::invalid(format!("resources.{field}: {value} is neither a limit nor -1"))),
    }
}

/// The writes that `resources` asks for, in an order that the kernel accepts, without touching anything.
///
/// # Errors
///
/// `InvalidArgument` naming the field.
pub fn writes(resources: &Resources) -> Result<Vec<(&'static str, String)>> {
    let mut writes = Vec::new();
    let memory = [
        ("memory.max", "memory_max", resources.memory_max),
        ("memory.high", "memory_high", resources.memory_high),
        ("memory.low", "memory_low", resources.memory_low),
        ("memory.swap.max", "memory_swap_max", resources.memory_swap_max),
        ("pids.max", "pids_max", resources.pids_max),
    ];
    for (file, field, value) in memory {
        if let Some(value) = value {
            writes.push((file, bound(field, value)?));
        }
    }
    if let Some(period) = resources.cpu_period_us
        && !(1_000..=1_000_000).contains(&period)
    {
        return Err(Error::invalid(format!("resources.cpu_period_us: {period} is not within 1000 to 1000000")));
    }
    let period = resources.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US);
    match (resources.cpu_quota_us, resources.cpu_period_us) {
        (Some(quota), _) if quota != -1 && quota < 1_000 => {
            return Err(Error::invalid(format!("resources.cpu_quota_us: {quota} is less than 1000 and not -1")));
        }
        (Some(quota), _) => writes.push(("cpu.max", format!("{} {period}", bound("cpu_quota_us", quota)?))),
        (None, Some(_)) => writes.push(("cpu.max", format!("max {period}"))),
        (None, None) => {}
    }
    if let Some(weight) = resources.cpu_weight {
        if !(1..=10_000).contains(&weight) {
            return Err(Error::invalid(format!("resources.cpu_weight: {weight} is not within 1 to 10000")));
        }
        writes.push(("cpu.weight", weight.to_string()));
    }
    if let Some(cpus) = &resources.cpuset_cpus {
        if cpus.len() > 1024 || !cpus.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-')) {
            return Err(Error::invalid(format!("resources.cpuset_cpus: {cpus:?} is not a list of CPU numbers")));
        }
        // An empty list means "those of the parent".
        writes.push(("cpuset.cpus", if cpus.is_empty() { "\n".to_owned() } else { cpus.clone() }));
    }
    Ok(writes)
}

/// Sets `resources` on a cgroup. A limit already written stays when a later one is refused.
pub fn apply(cgroup: &Cgroup, resources: &Resources) -> Result<()> {
    for (file, value) in writes(resources)? {
        // Without swap in the kernel there is no such file, and nothing to limit.
        if file == "memory.swap.max" && !cgroup.path().join(file).exists() {
            continue;
        }
        cgroup.write(file, &value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_are_left_alone() {
        assert!(writes(&Resources::default()).unwrap().is_empty());
    }

    #[test]
    fn minus_one_is_max() {
        let resources = Resources { memory_max: Some(-1), pids_max: Some(64), ..Resources::default() };
        let expected = [("memory.max", "max".to_owned()), ("pids.max", "64".to_owned())];
        assert_eq!(writes(&resources).unwrap(), expected);
    }

    #[test]
    fn cpu_quota_and_period_are_one_write() {
        let mut resources = Resources { cpu_quota_us: Some(50_000), ..Resources::default() };
        assert_eq!(writes(&resources).unwrap(), [("cpu.max", "50000 100000".to_owned())]);
        resources.cpu_period_us = Some(20_000);
        resources.cpu_quota_us = Some(-1);
        assert_eq!(writes(&resources).unwrap(), [("cpu.max", "max 20000".to_owned())]);
        resources.cpu_quota_us = None;
        assert_eq!(writes(&resources).unwrap(), [("cpu.max", "max 20000".to_owned())]);
    }

    #[test]
    fn values_out_of_range_name_their_field() {
        let bad = [
            (Resources { memory_max: Some(-2), ..Resources::default() }, "memory_max"),
            (Resources { cpu_weight: Some(0), ..Resources::default() }, "cpu_weight"),
            (Resources { cpu_quota_us: Some(5), ..Resources::default() }, "cpu_quota_us"),
            (Resources { cpu_period_us: Some(5), ..Resources::default() }, "cpu_period_us"),
            (Resources { cpuset_cpus: Some("0-1\n2".to_owned()), ..Resources::default() }, "cpuset_cpus"),
        ];
        for (resources, field) in bad {
            let error = writes(&resources).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn limits_are_written_to_their_files() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["memory.max", "cpu.weight"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let resources = Resources {
            memory_max: Some(1 << 20),
            cpu_weight: Some(39),
            memory_swap_max: Some(0),
            ..Resources::default()
        };
        apply(&Cgroup::at(dir.path()), &resources).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("memory.max")).unwrap(), "1048576");
        assert_eq!(std::fs::read_to_string(dir.path().join("cpu.weight")).unwrap(), "39");
    }
}
