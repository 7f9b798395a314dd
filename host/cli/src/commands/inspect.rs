//! `husk inspect`

use std::collections::BTreeSet;

use oci_spec::runtime::Mount;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::output;
use crate::pods::lookup::Found;
use crate::pods::prepare::HIDDEN;

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
    let mounts: Vec<_> = spec.iter().flat_map(|s| s.mounts().iter().flatten()).filter_map(mount).collect();
    let env = process.as_ref().and_then(|p| p.env().clone());
    let env = env.map(|env| env.into_iter().map(|entry| shown(entry, &container.secret_env)).collect::<Vec<_>>());
    json!({
        "Id": container.id,
        "Name": container.name,
        "Created": container.created,
        "Path": container.command.first(),
        "Args": container.command.get(1..),
        "State": {
            "Status": state.status.as_str(),
            "Running": state.has_processes(),
            "Paused": state.status == crate::pods::record::Status::Paused,
            "Restarting": state.status == crate::pods::record::Status::Restarting,
            "Ready": container.is_ready(),
            "OOMKilled": state.oom_kills > 0,
            "OOMKills": state.oom_kills,
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
        "Health": container.health,
        "Config": {
            "Hostname": pod.hostname,
            "User": process.as_ref().map(|p| format!("{}:{}", p.user().uid(), p.user().gid())),
            "Env": env,
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

/// What the user asked to be mounted; not the kernel's file systems and the pod's own files.
fn mount(mount: &Mount) -> Option<Value> {
    let options = mount.options().as_deref().unwrap_or_default();
    let has = |wanted: &str| options.iter().any(|o| o == wanted);
    let kind = match mount.typ().as_deref() {
        Some("husk.volume") => "volume",
        Some("husk.disk") if has("fs=erofs") => "image",
        Some("husk.disk") => "volume",
        Some("bind") => "bind",
        _ => return None,
    };
    let propagation = ["rprivate", "rslave"].into_iter().find(|option| has(option)).unwrap_or_default();
    Some(json!({
        "Type": kind,
        "Source": mount.source(),
        "Destination": mount.destination(),
        "RW": !has("ro") && !has("rro"),
        "Propagation": propagation,
        "Options": options,
    }))
}

/// `NAME=VALUE`, or only the name where the value is a secret.
fn shown(entry: String, secret: &BTreeSet<String>) -> String {
    match entry.split_once('=') {
        Some((name, _)) if secret.contains(name) => format!("{name}={HIDDEN}"),
        _ => entry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secret = BTreeSet::from(["PASSWORD".to_owned()]);
        assert_eq!(shown("PASSWORD=hunter2".into(), &secret), "PASSWORD=***");
        assert_eq!(shown("USER=x".into(), &secret), "USER=x");
    }

    #[test]
    fn a_bind_tells_what_it_is() {
        let mut of_host = Mount::default();
        let options = ["rbind", "rro", "rslave"].map(str::to_owned).to_vec();
        of_host.set_typ(Some("bind".into())).set_options(Some(options)).set_destination("/x".into());
        let told = mount(&of_host).unwrap();
        assert_eq!(
            (&told["Type"], &told["RW"], &told["Propagation"]),
            (&json!("bind"), &json!(false), &json!("rslave"))
        );
        of_host.set_typ(Some("proc".into()));
        assert!(mount(&of_host).is_none());
    }
}
