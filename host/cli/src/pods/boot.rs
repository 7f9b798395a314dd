//! Bringing up a pod's VM.

use anyhow::Context as _;
use husk_client::{CreateTask, PodInspect, Shim};

use super::directory::PodDir;
use super::record::Boot;
use super::teardown;
use crate::engine::Engine;
use crate::error::Advise as _;
use crate::host::{self, HostError};
use crate::network;

/// Starts the shim and has it boot the pod's VM. When a step fails, what the earlier ones made is gone again.
pub(crate) async fn boot(engine: &Engine, dir: &PodDir, pod: &str) -> anyhow::Result<Shim> {
    host::kvm_is_there()?;
    if let Err(error) = network::attach(dir).await {
        teardown::purge(engine, pod, &dir.bundle(pod)).await;
        return Err(error).context("cannot attach the pod to its network");
    }
    match try_boot(engine, dir, pod).await {
        Ok(shim) => Ok(shim),
        Err(error) => {
            teardown::purge(engine, pod, &dir.bundle(pod)).await;
            match host::probe_kvm().await {
                // The machine itself is at fault; what the shim saw is only a consequence.
                Err(cause @ (HostError::NoKvm(_) | HostError::KvmProbe(_) | HostError::NoVmm { .. })) => {
                    Err(cause).context("cannot start the pod's VM")
                }
                _ => Err(error).hint("`husk check` tells what this machine lacks"),
            }
        }
    }
}

async fn try_boot(engine: &Engine, dir: &PodDir, pod: &str) -> anyhow::Result<Shim> {
    let bundle = dir.bundle(pod);
    let shim = engine.launcher()?.launch(pod, &bundle).await.context("cannot start the pod's shim")?;
    let task = CreateTask { id: pod.to_owned(), bundle, ..CreateTask::default() };
    shim.create(task).await.context("cannot start the pod's VM")?;
    if let Err(error) = shim.start(pod).await {
        // The VM was up and is not any more: why, only the shim knows.
        let ended = shim.inspect().await.ok().and_then(|inspect| inspect.vm_ended);
        let error = ended.map_or_else(|| error.to_string(), |why| format!("its VM ended right away: {why}"));
        anyhow::bail!("cannot start the pod: {error}");
    }
    if let Ok(inspect) = shim.inspect().await {
        dir.update(|record| record.boot = Some(timeline(&inspect)))?;
    }
    Ok(shim)
}

/// The boot timeline in milliseconds.
pub(crate) fn timeline(inspect: &PodInspect) -> Boot {
    // Microseconds of a boot are far below 2^53.
    #[expect(clippy::cast_precision_loss, reason = "for people to read, in thousandths of a millisecond")]
    let ms = |us: u64| us as f64 / 1000.0;
    Boot {
        memory_mib: inspect.memory_mib,
        vcpus: inspect.vcpus,
        kernel: inspect.kernel_release.clone(),
        timeline_ms: inspect.timeline.iter().map(|step| (step.name.clone(), ms(step.at_us))).collect(),
    }
}
