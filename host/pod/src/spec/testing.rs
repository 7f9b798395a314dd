//! Specs for tests, from JSON as clients write it.

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// A small valid container spec.
pub(crate) fn base() -> Value {
    json!({
        "ociVersion": "1.1.0",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sleep", "inf"],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": true
        },
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"}
            ]
        }
    })
}

/// [`base`] with the value at a JSON pointer's place replaced or added.
pub(crate) fn with(pointer: &str, value: Value) -> Spec {
    let mut json = base();
    set(&mut json, pointer, value);
    serde_json::from_value(json).unwrap()
}

/// Sets the member of an object that `pointer` names, making the objects on the way.
pub(crate) fn set(json: &mut Value, pointer: &str, value: Value) {
    let mut place = json;
    for name in pointer.split('/').skip(1) {
        place = place.as_object_mut().unwrap().entry(name).or_insert_with(|| json!({}));
    }
    *place = value;
}
