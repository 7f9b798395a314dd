//! `husk pod inspect`

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::output;
use crate::pods::boot;
use crate::pods::plan::Kind;
use crate::pods::record::{ContainerRecord, Phase, PodRecord};

/// Show everything about pods, their VM and its boot, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// There is only this one
    #[arg(long, value_name = "FORMAT", value_parser = ["json"], default_value = "json", hide = true)]
    format: String,
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let mut shown = Vec::with_capacity(args.pods.len());
    for name in &args.pods {
        shown.push(inspect(&engine, &super::find(&engine, name).await?).await?);
    }
    output::json(&shown)
}

/// Kubernetes' conditions of a pod.
fn conditions(pod: &PodRecord) -> Vec<Value> {
    let initialized =
        pod.containers.iter().filter(|c| matches!(c.kind, Kind::Init | Kind::Sidecar)).all(|c| match c.kind {
            Kind::Init => c.state.exit_code == Some(0),
            _ => c.state.started.is_some(),
        });
    let ready = pod.phase == Phase::Running
        && pod.containers.iter().filter(|c| matches!(c.kind, Kind::Sidecar | Kind::App)).all(ContainerRecord::is_ready);
    [("Initialized", initialized), ("ContainersReady", ready), ("Ready", ready)]
        .map(|(kind, holds)| json!({ "Type": kind, "Status": if holds { "True" } else { "False" } }))
        .to_vec()
}

async fn inspect(engine: &Engine, pod: &PodRecord) -> anyhow::Result<Value> {
    let (live, host) = match engine.connect(&pod.id).await? {
        Some(shim) => (shim.inspect().await.ok(), shim.pod_stats().await.ok()),
        None => (None, None),
    };
    let boot = live.as_ref().map(boot::timeline).or_else(|| pod.boot.clone());
    let containers: Vec<_> = pod
        .containers
        .iter()
        .map(|c| {
            json!({
                "Id": c.id,
                "Name": c.name,
                "Kind": c.kind,
                "Image": c.image,
                "State": {
                    "Status": c.state.status.as_str(),
                    "Pid": c.state.pid.unwrap_or_default(),
                    "Ready": c.is_ready(),
                    "ExitCode": c.state.exit_code.unwrap_or_default(),
                    "OOMKilled": c.state.oom_kills > 0,
                    "Error": c.state.message.clone().unwrap_or_default(),
                    "StartedAt": c.state.started,
                    "FinishedAt": c.state.finished,
                    "RestartCount": c.state.restarts,
                },
            })
        })
        .collect();
    let slots: Vec<_> = live
        .iter()
        .flat_map(|l| &l.slots)
        .map(|s| json!({ "Slot": s.index, "Device": s.device, "Purpose": s.purpose }))
        .collect();
    Ok(json!({
        "Id": pod.id,
        "Name": pod.name,
        "Namespace": pod.namespace,
        "Uid": pod.uid,
        "Hostname": pod.hostname,
        "Created": pod.created,
        "State": pod.phase,
        "Conditions": conditions(pod),
        "Message": pod.message,
        "StartedAt": pod.started,
        "FinishedAt": pod.finished,
        "RestartPolicy": pod.restart_policy,
        "ExitPolicy": pod.exit_policy,
        "SharedPidNamespace": pod.share_process_namespace,
        "Labels": pod.labels,
        "Annotations": pod.annotations,
        "Volumes": pod.named_volumes,
        "IPs": pod.ips,
        "Network": pod.network,
        "NetworkMs": pod.network_ms,
        "VM": {
            "Running": live.as_ref().is_some_and(|l| l.vm_ended.is_none()),
            "VmmPid": live.as_ref().and_then(|l| l.vmm_pid).unwrap_or_default(),
            "MemoryMiB": boot.as_ref().map(|b| b.memory_mib),
            "CPUs": boot.as_ref().map(|b| b.vcpus),
            // As large it can become while it runs.
            "MaxMemoryMiB": live.as_ref().map(|l| l.max_memory_mib),
            "MaxCPUs": live.as_ref().map(|l| l.max_vcpus),
            "Kernel": boot.as_ref().map(|b| b.kernel.clone()),
            "Slots": slots,
        },
        // By the host's count, guest and VMM together.
        "Host": host.map(|host| json!({
            "Cgroup": host.cgroup,
            "CpuUs": host.cpu_us,
            "CpuThrottledUs": host.cpu_throttled_us,
            "MemoryBytes": host.memory,
            "MemoryPeakBytes": host.memory_peak,
            "MemoryLimitBytes": host.memory_limit,
            "VmmResidentBytes": host.vmm_resident,
        })),
        // In the order of the steps; a JSON object would sort them by name.
        "BootTimelineMs": boot.as_ref().map(|b| {
            b.timeline_ms.iter().map(|(name, ms)| BTreeMap::from([(name.clone(), *ms)])).collect::<Vec<_>>()
        }),
        "Containers": containers,
    }))
}
