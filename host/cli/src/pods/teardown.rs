//! Ending pods and containers, and removing what is left of them. Nothing here needs a pod that still answers.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use husk_client::{Shim, TaskError};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::directory::{DirectoryError, PodDir};
use super::lookup::Found;
use super::observe;
use super::record::{ContainerRecord, Phase, PodRecord, Status, Wanted};
use super::runner;
use crate::engine::Engine;
use crate::network;
use crate::terminal::signals;

/// How long a VM may take to end after it was asked to; the shim itself has smaller bounds.
const SANDBOX_END: Duration = Duration::from_secs(30);
/// How long a supervisor may take to write down what it saw.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a killed container may take to be gone.
const KILL_END: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(25);

/// Stops a container: its stop signal, SIGKILL after the grace, and no restart.
///
/// # Errors
///
/// When the record cannot be written or the shim refuses.
pub(crate) async fn stop_container(engine: &Engine, found: &Found, grace: Duration) -> anyhow::Result<()> {
    let dir = engine.pods.open(&found.pod.id);
    let container = &found.container;
    dir.update(|record| set_wanted(record, &container.id, Wanted::Stop))?;
    if let Some(shim) = engine.connect(&found.pod.id).await? {
        end_task(&shim, container, grace).await?;
    }
    settle(engine, &dir, &container.id).await
}

/// Ends a container's run as [`stop_container`] does, leaving its record to whoever keeps it.
pub(crate) async fn signal_end(engine: &Engine, found: &Found, grace: Duration) -> anyhow::Result<()> {
    let dir = engine.pods.open(&found.pod.id);
    dir.update(|record| set_wanted(record, &found.container.id, Wanted::Stop))?;
    if let Some(shim) = engine.connect(&found.pod.id).await? {
        end_task(&shim, &found.container, grace).await?;
    }
    Ok(())
}

/// Signals a task and waits for its end, bounded.
async fn end_task(shim: &Shim, container: &ContainerRecord, grace: Duration) -> Result<(), TaskError> {
    let id = &container.id;
    let first = if grace.is_zero() { signals::KILL } else { container.stop_signal };
    if !alive(shim.kill(id, None, first, false).await)? {
        return Ok(());
    }
    if timeout(if grace.is_zero() { KILL_END } else { grace }, shim.wait(id, None)).await.is_ok() {
        return Ok(());
    }
    if alive(shim.kill(id, None, signals::KILL, true).await)? {
        // A task that even SIGKILL does not end is ended with its VM, by its pod's removal.
        let _ = timeout(KILL_END, shim.wait(id, None)).await;
    }
    Ok(())
}

/// Whether there was still something to signal.
fn alive(killed: Result<(), TaskError>) -> Result<bool, TaskError> {
    match killed {
        Ok(()) => Ok(true),
        Err(TaskError::NotFound(_) | TaskError::FailedPrecondition(_) | TaskError::Unavailable(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until the container's end is on record: its supervisor writes it, or, when that is dead, we do.
async fn settle(engine: &Engine, dir: &PodDir, id: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let record = match dir.record() {
            Ok(record) => record,
            Err(DirectoryError::Gone) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(container) = record.container(id) else { return Ok(()) };
        if !container.state.is_active() {
            return Ok(());
        }
        let supervised = container.supervisor.is_some_and(|s| s.is_alive());
        if !supervised || Instant::now() >= deadline {
            observe::pod(engine, record).await?;
            return Ok(());
        }
        sleep(POLL).await;
    }
}

/// Stops every container of a pod at once, sidecars after the others, and then its VM.
pub(crate) async fn stop_pod(engine: &Engine, pod: &PodRecord, grace: Option<Duration>) -> anyhow::Result<()> {
    let dir = engine.pods.open(&pod.id);
    let record = dir.update(|record| record.containers.iter_mut().for_each(|c| c.wanted = Wanted::Stop))?;
    if let Some(shim) = engine.connect(&pod.id).await? {
        let (sidecars, others): (Vec<_>, Vec<_>) =
            record.containers.iter().partition(|c| c.kind == super::plan::Kind::Sidecar);
        for group in [others, sidecars] {
            let ends = group.into_iter().filter(|c| c.state.status == Status::Running).map(|container| {
                let shim = shim.clone();
                let grace = grace.unwrap_or(Duration::from_secs(container.stop_timeout));
                async move { end_task(&shim, container, grace).await }
            });
            for result in join_all(ends).await {
                result?;
            }
        }
    }
    // A supervisor that is alive now records the ends and finishes the pod itself.
    let deadline = Instant::now() + SETTLE;
    loop {
        let record = match dir.record() {
            Ok(record) => record,
            Err(DirectoryError::Gone) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let supervised = record.containers.iter().any(|c| c.supervisor.is_some_and(|s| s.is_alive() && !s.is_own()));
        if record.phase.is_over() {
            return Ok(());
        }
        if !supervised || Instant::now() >= deadline {
            finish(engine, &dir, Phase::Stopped, None).await?;
            return Ok(());
        }
        sleep(POLL).await;
    }
}

/// Ends the pod's VM and puts its end on record.
pub(crate) async fn finish(engine: &Engine, dir: &PodDir, phase: Phase, message: Option<String>) -> anyhow::Result<()> {
    let record = dir.record()?;
    purge(engine, &record.id, &dir.bundle(&record.id)).await;
    dir.update(|record| record.end(phase, message, Timestamp::now()))?;
    Ok(())
}

/// Removes everything of a pod, running or not. Idempotent.
///
/// # Errors
///
/// When files cannot be removed. The VM is gone in any case.
pub(crate) async fn remove_pod(engine: &Engine, pod: &PodRecord) -> anyhow::Result<()> {
    let dir = engine.pods.open(&pod.id);
    let record = match dir.update(|record| record.containers.iter_mut().for_each(|c| c.wanted = Wanted::Stop)) {
        Ok(record) => record,
        Err(DirectoryError::Gone) => return Ok(()),
        Err(_) => pod.clone(),
    };
    purge(engine, &pod.id, &dir.bundle(&pod.id)).await;
    let supervisors: Vec<_> = record.containers.iter().filter_map(|c| c.supervisor).filter(|s| !s.is_own()).collect();
    // Its waits have ended with the VM; one that lingers must not write into what is being removed.
    let deadline = Instant::now() + Duration::from_secs(3);
    while supervisors.iter().any(|s| s.is_alive()) && Instant::now() < deadline {
        sleep(POLL).await;
    }
    supervisors.iter().for_each(|s| s.kill());
    dir.remove()?;
    Ok(())
}

/// Removes one container of a pod that stays.
pub(crate) async fn remove_container(engine: &Engine, found: &Found) -> anyhow::Result<()> {
    stop_container(engine, found, Duration::ZERO).await?;
    if let Some(shim) = engine.connect(&found.pod.id).await? {
        // Deleted by its supervisor, usually.
        let _ = shim.delete(&found.container.id, None).await;
    }
    Ok(engine.pods.open(&found.pod.id).remove_container(&found.container.id)?)
}

/// Ends the shim with its VM and removes what they have on the host, whatever state they are in. Never fails: what
/// cannot be done now is what the next removal finds.
pub(crate) async fn purge(engine: &Engine, pod: &str, bundle: &Path) {
    if let Ok(Some(shim)) = engine.connect(pod).await {
        match timeout(SANDBOX_END, end_sandbox(&shim, pod)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("pod {pod}: {error}"),
            Err(_) => tracing::debug!("pod {pod}: its VM did not end within {} s", SANDBOX_END.as_secs()),
        }
    }
    if engine.has_remains(pod) {
        match engine.launcher() {
            Ok(launcher) => {
                if let Err(error) = launcher.delete_dead(pod, bundle).await {
                    tracing::warn!("pod {pod}: its remains could not be removed: {error}");
                }
            }
            Err(error) => tracing::warn!("pod {pod}: its remains could not be removed: {error}"),
        }
    }
    // Last: the VMM has held the tap.
    network::detach(engine.paths.run(), pod).await;
}

async fn end_sandbox(shim: &Shim, pod: &str) -> Result<(), TaskError> {
    if alive(shim.kill(pod, None, signals::TERM, false).await)? {
        shim.wait(pod, None).await?;
    }
    match shim.delete(pod, None).await {
        Ok(_) | Err(TaskError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    shim.shutdown().await
}

fn set_wanted(record: &mut PodRecord, id: &str, wanted: Wanted) {
    if let Some(container) = record.container_mut(id) {
        container.wanted = wanted;
    }
}

/// Records the end of a container.
pub(crate) fn record_end(dir: &PodDir, id: &str, ended: &runner::Ended) -> Result<PodRecord, DirectoryError> {
    dir.update(|record| {
        if let Some(container) = record.container_mut(id) {
            container.state.exited(ended.code, ended.oom_kills, ended.at, ended.message.clone());
        }
    })
}
