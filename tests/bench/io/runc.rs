//! The network's workloads in a runc container, on the veth itself.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::json;

use super::cpu;
use super::network::Network;
use super::stage::Stage;
use super::transcript::{self, Phase};

const NAME: &str = "husk-bench";

pub(super) fn perform(stage: &Stage) -> Result<Vec<Phase>> {
    let props = stage.props()?;
    let bundle = props.path("bundle");
    let (rootfs, pid_file) = (bundle.join("rootfs"), bundle.join("pid"));
    fs::create_dir_all(rootfs.join("proc"))?;
    fs::copy(&stage.program, rootfs.join("bench"))?;
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bench", "net", Network::SERVER],
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": {
            "namespaces": [
                { "type": "pid" },
                { "type": "ipc" },
                { "type": "uts" },
                { "type": "mount" },
                { "type": "cgroup" },
                { "type": "network", "path": stage.network.netns() },
            ],
        },
    });
    fs::write(bundle.join("config.json"), spec.to_string())?;
    let mut child = Command::new("runc")
        .args(["run", "--bundle"])
        .arg(&bundle)
        .arg("--pid-file")
        .arg(&pid_file)
        .arg(NAME)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting runc, from the package runc")?;
    let output = child.stdout.take().context("runc's output")?;
    let phases = transcript::follow(output, || {
        // Written before the program starts.
        let pid = fs::read_to_string(&pid_file).context("the container's process")?;
        cpu::time_of(&[pid.trim().parse()?])
    });
    if phases.is_err() {
        let _ = Command::new("runc").args(["delete", "--force", NAME]).status();
    }
    child.wait()?;
    phases
}
