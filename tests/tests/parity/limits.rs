//! Control groups and rlimits.

use husk_tests::parity::Case;
use serde_json::{Value, json};

const FILES: &str = "
say cgroup cat /proc/self/cgroup
say controllers sh_ 'for c in cpu cpuset io memory pids; do grep -o \"\\b$c\\b\" /sys/fs/cgroup/cgroup.controllers; done | sort -u'
for file in memory.max memory.high memory.low memory.min memory.swap.max memory.oom.group cpu.max cpu.weight pids.max \\
    cpuset.cpus cgroup.type cgroup.freeze; do group $file; done
";

fn resources(resources: Value) -> Value {
    json!({"linux": {"resources": resources}})
}

pub(crate) fn cases() -> Vec<Case> {
    let rlimits: Vec<Value> = [
        ("CPU", 1000_u64, 2000_u64),
        ("FSIZE", 1 << 30, 1 << 31),
        ("DATA", 1 << 32, 1 << 33),
        ("STACK", 4 << 20, 16 << 20),
        ("CORE", 0, 1 << 20),
        ("RSS", 1 << 28, 1 << 29),
        ("NPROC", 500, 600),
        ("NOFILE", 100, 200),
        ("MEMLOCK", 65_536, 131_072),
        ("AS", 1 << 40, 1 << 41),
        ("LOCKS", 10, 20),
        ("SIGPENDING", 30, 40),
        ("MSGQUEUE", 50_000, 60_000),
        ("NICE", 5, 10),
        ("RTPRIO", 1, 2),
        ("RTTIME", 1000, 2000),
    ]
    .map(|(name, soft, hard)| json!({"type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard}))
    .to_vec();
    let shown = "for name in 'cpu time' 'file size' 'data size' 'stack size' 'core file size' 'resident set' processes \\
        'open files' 'locked memory' 'address space' 'file locks' 'pending signals' 'msgqueue size' 'nice priority' \\
        'realtime priority' 'realtime timeout'; do limit \"$name\"; done";
    vec![
        Case::new("none", json!({}), FILES),
        Case::new("memory", resources(json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}})), FILES),
        Case::new("reservation", resources(json!({"memory": {"limit": 67_108_864, "reservation": 33_554_432}})), FILES),
        Case::new("quota", resources(json!({"cpu": {"quota": 50_000, "period": 200_000}})), FILES),
        Case::new("unlimited", resources(json!({"cpu": {"quota": -1, "period": 100_000}, "memory": {"limit": -1}, "pids": {"limit": -1}})), FILES),
        Case::new("shares", resources(json!({"cpu": {"shares": 512}})), FILES),
        Case::new("least-shares", resources(json!({"cpu": {"shares": 2}})), FILES),
        Case::new("most-shares", resources(json!({"cpu": {"shares": 262_144}})), FILES),
        Case::new("pids", resources(json!({"pids": {"limit": 20}})), FILES),
        Case::new("cpuset", resources(json!({"cpu": {"cpus": "0"}})), "group cpuset.cpus\ngroup cpuset.cpus.effective\nstatus Cpus_allowed_list\nsay nproc nproc"),
        Case::new(
            "fork-bomb",
            resources(json!({"pids": {"limit": 20}})),
            "sh -c 'i=0; while [ $i -lt 40 ]; do sleep 30 & i=$((i + 1)); done' 2>/tmp/errors
             say refused sh_ 'grep -c . /tmp/errors | grep -vc ^0'\ngroup pids.current\nsay events sh_ 'grep -vc \" 0$\" /sys/fs/cgroup/pids.events'",
        ),
        Case::new(
            "child-oom",
            resources(json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}})),
            "sh -c 'tail /dev/zero' >/dev/null 2>&1\nsay code echo $?\nsay kills grep ^oom_kill /sys/fs/cgroup/memory.events\nsay alive true",
        ),
        Case::new("own-oom", json!({"process": {"args": ["/bin/tail", "/dev/zero"]}, "linux": {"resources": {"memory": {"limit": 33_554_432, "swap": 33_554_432}}}}), ""),
        Case::new(
            "shared-memory",
            resources(json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}})),
            "dd if=/dev/zero of=/dev/shm/much bs=1M count=60 2>/dev/null\nsay code echo $?",
        ),
        Case::new(
            "closed-group",
            resources(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 50}})),
            "try memory put max /sys/fs/cgroup/memory.max\ntry pids put max /sys/fs/cgroup/pids.max\ntry child mkdir /sys/fs/cgroup/child
             try kill put 1 /sys/fs/cgroup/cgroup.kill\ntry freeze put 1 /sys/fs/cgroup/cgroup.freeze",
        ),
        Case::new("rlimits", json!({"process": {"rlimits": rlimits}}), shown),
        Case::new(
            "rlimits-hold",
            json!({"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 8, "hard": 8}, {"type": "RLIMIT_FSIZE", "soft": 1000, "hard": 1000}]}}),
            "try raise ulimit -n 100\ntry size sh_ 'trap \"\" XFSZ; dd if=/dev/zero of=/tmp/f bs=2000 count=1 2>/dev/null'\nsay written stat -c %s /tmp/f",
        ),
        Case::new("oom-score", json!({"process": {"oomScoreAdj": 500}}), "say score cat /proc/self/oom_score_adj\ntry lower put -500 /proc/self/oom_score_adj\ntry raise put 900 /proc/self/oom_score_adj"),
        Case::exec("exec-limits", resources(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 30}})), json!({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}], "oomScoreAdj": 300}), "group memory.max\ngroup pids.max\nlimit 'open files'\nsay score cat /proc/self/oom_score_adj"),
    ]
}

/// The only container's limits in a pod of one.
pub(crate) fn alone() -> Vec<Case> {
    let limits = json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}, "cpu": {"quota": 150_000, "period": 100_000, "shares": 2048}, "pids": {"limit": 64}});
    vec![Case::new("single", resources(limits), FILES)]
}
