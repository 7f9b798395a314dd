//! `husk inspect`

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::output;
use crate::pods::lookup::Found;

/// Show everything about containers, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// There is only this one
    #[arg(long, value_name = "FORMAT", value_parser = ["json"], default_value = "json", hide = true)]
    format: String,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let mut shown = Vec::with_capacity(args.containers.len());
    for name in &args.containers {
        shown.push(inspect(&engine, &super::find_container(&engine, name).await?));
    }
    output::json(&shown)
}

/// In the shape of `podman inspect`, where both have a thing.
fn inspect(engine: &Engine, found: &Found) -> Value {
    let Found { pod, container } = found;
    let state = &container.state;
    let dir = engine.pods.open(&pod.id);
    let spec = dir.spec(&container.id).ok();
    let process = spec.as_ref().and_then(|s| s.process().clone());
    let resources = spec.as_ref().and_then(|s| s.linux().clone()).and_then(|l| l.resources().clone());
    let memory = resources.as_ref().and_then(|r| r.memory().as_ref().and_then(|m| m.limit())).unwrap_or_default();
    let cpu = resources.as_ref().and_then(|r| r.cpu().clone());
    let mounts: Vec<_> = spec
        .iter()
        .flat_map(|s| s.mounts().iter().flatten())
        .filter(|m| matches!(m.typ().as_deref(), Some("husk.volume" | "husk.disk")))
        .map(|m| {
            let read_only = m.options().iter().flatten().any(|o| o == "ro");
            json!({
                "Type": "volume", "Source": m.source(), "Destination": m.destination(), "RW": !read_only,
            })
        })
        .collect();
    json!({
        "Id": container.id,
        "Name": container.name,
        "Created": container.created,
        "Path": container.command.first(),
        "Args": container.command.get(1..),
        "State": {
            "Status": state.status.as_str(),
            "Running": state.status == crate::pods::record::Status::Running,
            "Restarting": state.status == crate::pods::record::Status::Restarting,
            "OOMKilled": state.oom_killed,
            "Pid": state.pid.unwrap_or_default(),
            "ExitCode": state.exit_code.unwrap_or_default(),
            "Error": state.message.clone().unwrap_or_default(),
            "StartedAt": state.started,
            "FinishedAt": state.finished,
            "NextStartAt": state.next_start,
        },
        "Image": container.image_id,
        "ImageName": container.image,
        "Rootfs": container.rootfs,
        "Pod": pod.id,
        "PodName": pod.name,
        "Kind": container.kind,
        "RestartCount": state.restarts,
        "Mounts": mounts,
        "LogPath": dir.log(&container.short_name),
        "BundlePath": dir.bundle(&container.id),
        "Config": {
            "Hostname": pod.hostname,
            "User": process.as_ref().map(|p| format!("{}:{}", p.user().uid(), p.user().gid())),
            "Env": process.as_ref().and_then(|p| p.env().clone()),
            "WorkingDir": process.as_ref().map(|p| p.cwd().clone()),
            "Tty": container.terminal,
            "OpenStdin": container.stdin,
            "StopSignal": container.stop_signal,
            "StopTimeout": container.stop_timeout,
            "Labels": container.labels,
        },
        "HostConfig": {
            "Memory": memory,
            "CpuQuota": cpu.as_ref().and_then(|c| c.quota()).unwrap_or_default(),
            "CpuPeriod": cpu.as_ref().and_then(|c| c.period()).unwrap_or_default(),
            "CpuShares": cpu.as_ref().and_then(|c| c.shares()).unwrap_or_default(),
            "PidsLimit": resources.as_ref().and_then(|r| r.pids().as_ref().map(|p| p.limit())).unwrap_or_default(),
            "RestartPolicy": { "Name": container.restart },
            "AutoRemove": container.auto_remove,
            "ReadonlyRootfs": spec.as_ref().and_then(|s| s.root().as_ref()).and_then(|r| r.readonly()),
        },
    })
}
