//! The ordinary configuration: what an engine gives an unprivileged container.

use serde_json::{Value, json};

use super::Case;
use crate::behaviour;

/// Podman's and Docker's default capabilities without those for making devices and raw sockets.
const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Waits to be killed, and ends at once when it is asked to.
const WAITING: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

/// The whole configuration of a case's container.
pub(super) fn config(case: &Case) -> Value {
    let script = if case.exec.is_some() { WAITING } else { &case.script };

    let namespaces = ["pid", "mount", "ipc", "uts", "network", "cgroup"].map(|kind| json!({"type": kind}));
    let mut config = json!({
        "ociVersion": "1.0.2",
        "hostname": "parity",
        "root": {"path": "rootfs", "readonly": false},
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin", "TERM=xterm"],
            "args": shell(script),
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
            "noNewPrivileges": true,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "cgroupsPath": "/parity",
            "namespaces": namespaces,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if case.all_capabilities {
        let all = behaviour::capabilities();
        merge(
            &mut config,
            &json!({"process": {"capabilities": {"bounding": all, "effective": all, "permitted": all}}}),
        );
    }
    if let Some(Value::Array(mounts)) = config.get_mut("mounts") {
        mounts.extend_from_slice(&case.mounts);
    }
    merge(&mut config, &case.spec);
    config
}

/// The process of an exec: the container's, patched.
pub(super) fn process(config: &Value, patch: &Value, script: &str) -> Value {
    let mut process = config.get("process").cloned().unwrap_or_default();
    merge(&mut process, &json!({"args": shell(script)}));
    merge(&mut process, patch);
    process
}

fn shell(script: &str) -> Value {
    json!(["/bin/sh", "-c", format!(". /lib/say\n{script}")])
}

/// Objects are merged, everything else is replaced; null removes, and alone changes nothing.
pub(super) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (_, Value::Null) => {}
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}
