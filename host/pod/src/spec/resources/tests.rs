use proptest::prelude::*;
use serde_json::{Value, json};

use super::cpu::weight;
use super::memory::swap_max;
use super::*;

fn parse(json: Value) -> Result<v1::Resources, SpecError> {
    Ok(resources(&serde_json::from_value(json).unwrap(), &[])?.agent)
}

#[test]
fn no_limits_leave_everything_alone() {
    assert_eq!(parse(json!({})).unwrap(), v1::Resources::default());
    let zeros =
        json!({"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0, "period": 0}, "pids": {"limit": 0}});
    assert_eq!(parse(zeros).unwrap(), v1::Resources::default());
}

#[test]
fn memory_limits_are_translated() {
    let limits = parse(json!({"memory": {"limit": 268_435_456, "reservation": 1024, "swap": 268_435_456}})).unwrap();
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
        json!({"realtimeRuntime": 5}),
        json!({"mems": "x"}),
        json!({"idle": 2}),
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
        json!({"network": {"classID": 5}}),
        json!({"rdma": {"mlx5": {"hcaHandles": 1}}}),
        json!({"blockIO": {"leafWeight": 10}}),
        json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}}),
    ] {
        assert!(matches!(parse(bad.clone()), Err(SpecError::Unsupported { .. })), "{bad}");
    }
    assert!(parse(json!({"blockIO": {}, "hugepageLimits": [], "memory": {"disableOOMKiller": false}})).is_ok());
}

#[test]
fn unified_files_override_and_pass_to_the_guest() {
    let limits = parse(json!({"pids": {"limit": 5}, "unified": {
        "pids.max": "max", "cpu.max": "max 50000", "cpu.max.burst": "7", "memory.min": "4096", "memory.oom.group": "1",
    }}))
    .unwrap();
    assert_eq!((limits.pids_max, limits.cpu_quota_us, limits.cpu_period_us), (Some(-1), Some(-1), Some(50_000)));
    assert_eq!((limits.cpu_burst_us, limits.files.len()), (Some(7), 2));
    assert_eq!(limits.files["memory.min"], "4096");
}

#[test]
fn unified_files_outside_of_the_controllers_are_refused() {
    for bad in ["cgroup.freeze", "cgroup.procs", "devices.deny", "rdma.max", "memory/../x", "memory..x", "memory", ""] {
        let field = parse(json!({"unified": {bad: "1"}})).unwrap_err().field().to_owned();
        assert!(field.starts_with("linux.resources.unified["), "{bad}");
    }
    for (name, value) in [
        ("cpu.weight", "0"),
        ("memory.max", "-5"),
        ("io.max", "x"),
        ("io.weight", "8:0 100"),
        ("cpuset.cpus", "3-1"),
        ("memory.min", "1\u{0}"),
    ] {
        assert!(parse(json!({"unified": {name: value}})).is_err(), "{name}");
    }
}

#[test]
fn bursts_idle_nodes_and_checks_reach_the_guest() {
    let limits = parse(json!({
        "cpu": {"quota": 50_000, "burst": 20_000, "idle": 1, "mems": "0"}, "memory": {"checkBeforeUpdate": true},
    }))
    .unwrap();
    assert_eq!((limits.cpu_burst_us, limits.cpu_idle), (Some(20_000), Some(true)));
    assert_eq!((limits.cpuset_mems.as_deref(), limits.check_memory), (Some("0"), true));
}

#[test]
fn huge_pages_are_limited_by_size() {
    let limits =
        parse(json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}, {"pageSize": "1GB", "limit": 0}]}));
    let files = limits.unwrap().files;
    assert_eq!((files["hugetlb.2MB.max"].as_str(), files["hugetlb.1GB.rsvd.max"].as_str()), ("4194304", "0"));
    for bad in ["2M", "MB", "../MB", "x2MB", ""] {
        assert!(parse(json!({"hugepageLimits": [{"pageSize": bad, "limit": 1}]})).is_err(), "{bad}");
    }
}

#[test]
fn throttles_of_a_device_are_one() {
    let wanted = json!({"blockIO": {
        "weight": 500,
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1_048_576}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
    }});
    let limits = resources(&serde_json::from_value(wanted).unwrap(), &[]).unwrap();
    assert_eq!(limits.agent.files["io.weight"], "default 4950");
    let [throttle] = limits.throttles.as_slice() else { panic!("{limits:?}") };
    assert_eq!((throttle.major, throttle.rates.read_bytes), (8, Some(1_048_576)));
    assert_eq!((throttle.rates.write_operations, throttle.rates.write_bytes), (Some(u64::MAX), None));
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
