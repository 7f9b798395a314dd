//! What a pod may take, and that it takes no more: limits in the guest, on the host, memory that goes back, and pods that
//! grow and shrink.

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
    let state = husk.run(&["inspect", "unlimited"]).success().json()[0]["State"].clone();
    assert_eq!((&state["OOMKilled"], number(&state["OOMKills"])), (&Value::Bool(true), 1), "{state}");
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
    output.fails_saying(&["936096 MiB", "available"]);
}

/// Memory of the pod's VM in MiB.
fn vm_mib(husk: &Husk, pod: &str) -> u64 {
    number(&husk.inspect(pod)["VM"]["MemoryMiB"])
}

/// What `free` would show inside, in MiB.
fn meminfo_mib(husk: &Husk, container: &str) -> u64 {
    husk.sh(container, "awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo").parse().unwrap()
}

/// What the guest's kernel may keep of plugged memory for itself, in MiB.
const KEPT: u64 = 64;

#[test]
fn a_pod_grows_with_its_container_and_gives_all_back() {
    let husk = Husk::new();
    let flags = ["--memory", "128m", "--tmpfs", "/job:size=1000m"];
    husk.ok(&[&["run", "-d", "--name", "elastic"], &flags[..], &["busybox", "sleep", "10000"]].concat());
    let (small, before) = (meminfo_mib(&husk, "elastic"), resident(&husk, "elastic"));
    assert_eq!(vm_mib(&husk, "elastic"), 256);
    husk.ok(&["update", "--memory", "1g", "elastic"]);
    let pod = husk.inspect("elastic");
    assert_eq!(number(&pod["VM"]["MemoryMiB"]), 1152);
    assert_eq!(control(&host_cgroup(&pod), "memory.max"), ((1152 + 256) * MIB).to_string());
    assert_eq!(husk.sh("elastic", "cat /sys/fs/cgroup/memory.max"), (1 << 30).to_string());
    assert!((850..=900).contains(&(meminfo_mib(&husk, "elastic") - small)));
    husk.sh("elastic", "dd if=/dev/zero of=/job/data bs=1M count=900 2>/dev/null");
    assert!(resident(&husk, "elastic") >= before + 850 * MIB);
    // What is in use is not taken away; nothing has changed then.
    husk.run(&["pod", "update", "--memory", "128m", "elastic"]).fails_saying(&["bytes of memory", "134217728"]);
    assert_eq!(vm_mib(&husk, "elastic"), 1152);
    husk.sh("elastic", "rm /job/data");
    husk.ok(&["update", "--memory", "128m", "elastic"]);
    let pod = husk.inspect("elastic");
    let now = number(&pod["VM"]["MemoryMiB"]);
    assert!((256..=256 + KEPT).contains(&now), "{now} MiB");
    assert_eq!(control(&host_cgroup(&pod), "memory.max"), ((now + 256) * MIB).to_string());
    assert!(meminfo_mib(&husk, "elastic") <= small + KEPT);
    let most = before + (KEPT + 100) * MIB;
    wait_until("its memory is the host's again", 60, || resident(&husk, "elastic") <= most);
    assert_eq!(
        husk.sh("elastic", "cat /sys/fs/cgroup/memory.max; grep oom_kill\\  /sys/fs/cgroup/memory.events"),
        "134217728\noom_kill 0"
    );
    // The size of the pod itself, below what it was started with.
    husk.ok(&["pod", "update", "--memory", "64m", "elastic"]);
    assert!(vm_mib(&husk, "elastic") <= 256 + KEPT);
    husk.run(&["update", "--memory", "100m", "elastic"]).fails_saying(&["--memory", "67108864", "husk pod update"]);
    husk.ok(&["rm", "-f", "elastic"]);
}

#[test]
fn cpus_come_and_go_while_a_pod_runs() {
    let mut husk = Husk::new();
    // The box has fewer CPUs.
    husk.set("HUSK_MAX_VCPUS", "4");
    husk.ok(&["run", "-d", "--name", "wide", "--memory", "64m", "--cpus", "1", "busybox", "sleep", "10000"]);
    let seen = |count: u32| {
        let (husk, count) = (&husk, count.to_string());
        // The kernel widens the containers' cpusets a moment after a CPU has come.
        wait_until("the container sees its CPUs", 20, || husk.sh("wide", "nproc") == count);
        assert_eq!(husk.sh("wide", "grep -c ^processor /proc/cpuinfo"), count);
        assert_eq!(husk.inspect("wide")["VM"]["CPUs"].to_string(), count);
    };
    seen(1);
    let host = |file| control(&host_cgroup(&husk.inspect("wide")), file);
    for _ in 0..2 {
        husk.ok(&["update", "--cpus", "2.5", "wide"]);
        seen(3);
        assert_eq!(host("cpu.max"), "250000 100000");
        husk.ok(&["update", "--cpus", "0.5", "wide"]);
        seen(1);
        assert_eq!(host("cpu.max"), "50000 100000");
    }
    husk.run(&["update", "--cpus", "5", "wide"]).fails_saying(&["5 CPUs", "at most 4"]);
    assert_eq!(husk.sh("wide", "cat /sys/fs/cgroup/cpu.max"), "50000 100000");
    husk.ok(&["rm", "-f", "wide"]);
}

#[test]
fn a_pod_does_not_grow_beyond_its_host() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "modest", "--memory", "64m", "busybox", "sleep", "10000"]);
    husk.run(&["update", "--memory", "900g", "modest"]).fails_saying(&["936096 MiB", "at most"]);
    // All of the host's memory is more than what is free of it.
    let most = number(&husk.inspect("modest")["VM"]["MaxMemoryMiB"]);
    // A 65th of a large VM is its kernel's page structures.
    let all = format!("{}m", (most - 128) * 64 / 65);
    husk.run(&["pod", "update", "--memory", &all, "modest"]).fails_saying(&["MiB more", "MiB available"]);
    assert_eq!(vm_mib(&husk, "modest"), 192);
    assert_eq!(husk.sh("modest", "cat /sys/fs/cgroup/memory.max"), (64 * MIB).to_string());
    husk.ok(&["rm", "-f", "modest"]);
}

#[test]
fn a_container_that_joins_a_pod_brings_its_memory_and_takes_it_along() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--pod", "new:shared", "--name", "first", "--memory", "64m", "busybox", "sleep", "10000"]);
    assert_eq!(vm_mib(&husk, "shared"), 192);
    let flags = ["run", "--rm", "--pod", "shared", "--name", "guest", "--memory", "300m", "--tmpfs", "/t:size=250m"];
    let script = "dd if=/dev/zero of=/t/data bs=1M count=240 2>/dev/null && awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo";
    let seen: u64 = husk.ok(&[&flags[..], &["busybox", "sh", "-c", script]].concat()).trim().parse().unwrap();
    assert!(seen > 400, "{seen}");
    assert!(vm_mib(&husk, "shared") <= 192 + KEPT);
    let greedy = ["run", "--pod", "shared", "--name", "greedy", "--memory", "100g", "busybox", "true"];
    husk.run(&greedy).fails_saying(&["MiB", "shares what the pod has"]);
    assert_eq!(husk.run(&["ps", "-aq"]).success().text().lines().count(), 1);
    husk.ok(&["pod", "rm", "-f", "shared"]);
}

#[test]
fn a_restarted_container_keeps_the_limits_that_it_was_given() {
    let husk = Husk::new();
    let script = "trap 'exit 3' TERM; while :; do sleep 0.2; done";
    let flags = ["run", "-d", "--restart", "always", "--name", "again", "--memory", "64m"];
    husk.ok(&[&flags[..], &["busybox", "sh", "-c", script]].concat());
    husk.ok(&["update", "--memory", "200m", "again"]);
    husk.ok(&["exec", "again", "kill", "1"]);
    wait_until("it has been started again", 30, || {
        let state = husk.container("again");
        state.restarts() == 1 && state.status() == "running"
    });
    assert_eq!(husk.sh("again", "cat /sys/fs/cgroup/memory.max"), (200 * MIB).to_string());
    assert_eq!(vm_mib(&husk, "again"), 328);
    husk.ok(&["rm", "-f", "again"]);
}
