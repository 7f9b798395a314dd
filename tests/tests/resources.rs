//! What a pod may take, and that it takes no more: limits in the guest, on the host, and memory that goes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use husk_tests::fixture::{Husk, wait_until};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// `husk pod inspect` of the only pod.
fn pod(husk: &Husk, name: &str) -> Value {
    husk.inspect(name)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The pod's cgroup on the host.
fn host_cgroup(pod: &Value) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(pod["Host"]["Cgroup"].as_str().unwrap())
}

fn control(cgroup: &Path, file: &str) -> String {
    fs::read_to_string(cgroup.join(file)).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
}

/// What the guest has of the host's memory.
fn resident(husk: &Husk, name: &str) -> u64 {
    number(&pod(husk, name)["Host"]["VmmResidentBytes"])
}

/// The pod has 64 MiB, whatever a container in it is allowed.
#[test]
fn a_hog_is_killed_alone_even_without_a_limit_of_its_own() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--pod", "new:small", "--name", "quiet", "--memory", "64m", "busybox", "sleep", "10000"]);
    husk.run(&["run", "--pod", "small", "--name", "unlimited", "busybox", "tail", "/dev/zero"]).exits(137);
    // More than the VM has.
    let hog = ["run", "--pod", "small", "--name", "boundless", "--memory", "8g", "busybox", "tail", "/dev/zero"];
    husk.run(&hog).exits(137);
    for name in ["unlimited", "boundless"] {
        let state = husk.run(&["inspect", name]).success().json()[0]["State"].clone();
        assert_eq!((&state["OOMKilled"], number(&state["OOMKills"])), (&Value::Bool(true), 1), "{name}: {state}");
    }
    assert_eq!(husk.sh("quiet", "echo alive; cat /sys/fs/cgroup/memory.events | grep oom_kill"), "alive\noom_kill 0");
    // Each kill counts, not only the last: the shell outlives its children.
    let script = "for i in 1 2 3; do tail /dev/zero; done; exit 5";
    husk.run(&["run", "--pod", "small", "--name", "stubborn", "--memory", "16m", "busybox", "sh", "-c", script])
        .exits(5);
    let state = husk.run(&["inspect", "stubborn"]).success().json()[0]["State"].clone();
    assert_eq!((number(&state["OOMKills"]), number(&state["ExitCode"])), (3, 5), "{state}");
    husk.ok(&["pod", "rm", "-f", "small"]);
}

#[test]
fn the_hosts_cgroup_bounds_the_pod_and_goes_with_it() {
    let husk = Husk::new();
    let parent = Path::new("/sys/fs/cgroup/husk-tests");
    let flags = ["--memory", "64m", "--cpus", "0.5", "--cgroup-parent", "/husk-tests/deep"];
    husk.ok(&[&["run", "-d", "--name", "bounded"], &flags[..], &["busybox", "sleep", "10000"]].concat());
    let bounded = pod(&husk, "bounded");
    let cgroup = host_cgroup(&bounded);
    assert!(cgroup.starts_with(parent.join("deep")), "{}", cgroup.display());
    assert_eq!(control(&cgroup, "cgroup.procs"), number(&bounded["VM"]["VmmPid"]).to_string());
    // The container's limit, the guest's kernel and agent, and the VMM.
    assert_eq!(control(&cgroup, "memory.max"), ((64 + 128 + 256) * MIB).to_string());
    assert_eq!(control(&cgroup, "cpu.max"), "50000 100000");
    assert_eq!(number(&bounded["Host"]["MemoryLimitBytes"]), (64 + 128 + 256) * MIB);
    let (memory, cpu) = (number(&bounded["Host"]["MemoryBytes"]), number(&bounded["Host"]["CpuUs"]));
    assert!((20 * MIB..448 * MIB).contains(&memory) && cpu > 0, "{}", bounded["Host"]);
    husk.ok(&["rm", "-f", "bounded"]);
    wait_until("the cgroup is gone", 10, || !cgroup.exists());
    let _ = fs::remove_dir(parent.join("deep"));
    let _ = fs::remove_dir(parent);
    husk.run(&["run", "--cgroup-parent", "../up", "busybox", "true"]).fails_saying(&["--cgroup-parent"]);
}

#[test]
fn memory_that_a_job_has_freed_is_the_hosts_again() {
    let husk = Husk::new();
    let flags = ["--memory", "1200m", "--tmpfs", "/job:size=1100m"];
    husk.ok(&[&["run", "-d", "--name", "worker"], &flags[..], &["busybox", "sleep", "10000"]].concat());
    let before = resident(&husk, "worker");
    husk.sh("worker", "dd if=/dev/zero of=/job/data bs=1M count=1024 2>/dev/null");
    let during = resident(&husk, "worker");
    assert!(during >= before + 1000 * MIB, "{before} {during}");
    husk.sh("worker", "rm /job/data");
    let most = before + 1024 * MIB / 10;
    wait_until("nine tenths are back on the host", 60, || resident(&husk, "worker") <= most);
    // And it is still memory: a second job finds zeros and what it wrote.
    let again = "dd if=/dev/zero of=/job/data bs=1M count=256 2>/dev/null; md5sum </job/data";
    assert!(husk.sh("worker", again).starts_with("1f5039e50bd66b290c56684d8550c6c2"));
    husk.ok(&["rm", "-f", "worker"]);
}

#[test]
fn a_pod_that_cannot_fit_is_refused_before_anything_starts() {
    let husk = Husk::new();
    let output = husk.run(&["run", "--memory", "900g", "busybox", "true"]);
    output.fails_saying(&["921728 MiB", "available"]);
}
