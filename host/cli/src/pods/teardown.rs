//! Ending pods and containers, and removing what is left of them. Nothing here needs a pod that still answers.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use husk_client::{Shim, TaskError, still_there};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::directory::{DirectoryError, PodDir};
use super::health::Target;
use super::lookup::Found;
use super::plan::Kind;
use super::record::{ContainerRecord, Phase, PodRecord, Wanted};
use super::{observe, runner, size};
use crate::engine::Engine;
use crate::network;
use husk_spec::signals;

/// How long a supervisor may take to write down what it saw.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a killed container may take to be gone.
const KILL_END: Duration = Duration::from_secs(10);
/// What is left for the stop signal when a hook, or the containers before, took all of the grace; kubelet's.
const LEAST_GRACE: Duration = Duration::from_secs(2);
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
        end_task(&Target::of(&shim, &dir, &found.pod), container, grace).await?;
    }
    settle(engine, &dir, &container.id).await
}

/// Ends a container's run as [`stop_container`] does, leaving its record to whoever keeps it.
pub(crate) async fn signal_end(engine: &Engine, found: &Found, grace: Duration) -> anyhow::Result<()> {
    let dir = engine.pods.open(&found.pod.id);
    dir.update(|record| set_wanted(record, &found.container.id, Wanted::Stop))?;
    if let Some(shim) = engine.connect(&found.pod.id).await? {
        end_task(&Target::of(&shim, &dir, &found.pod), &found.container, grace).await?;
    }
    Ok(())
}

/// Waits for the end of a container that somebody else stops, at most for the grace and what a kill takes.
pub(crate) async fn wait_for_end(engine: &Engine, found: &Found, grace: Duration) -> anyhow::Result<()> {
    if let Some(shim) = engine.connect(&found.pod.id).await? {
        let _ = timeout(grace + KILL_END, shim.wait(&found.container.id, None)).await;
    }
    Ok(())
}

/// Ends a task and waits for that, bounded: its preStop hook and its stop signal, together within the grace, and
/// SIGKILL.
pub(crate) async fn end_task(target: &Target, container: &ContainerRecord, grace: Duration) -> Result<(), TaskError> {
    let (shim, id) = (&target.shim, &container.id);
    let grace = match &container.health.pre_stop {
        Some(hook) if !grace.is_zero() => {
            thaw(shim, id).await;
            let began = Instant::now();
            let done = tokio::select! {
                done = target.act(container, hook, grace) => done,
                // It may end by itself, or by what the hook does.
                _ = shim.wait(id, None) => Ok(()),
            };
            if let Err(failure) = done {
                tracing::warn!("container {}: its preStop hook failed: {failure}", container.name);
            }
            grace.saturating_sub(began.elapsed()).max(LEAST_GRACE)
        }
        _ => grace,
    };
    let first = if grace.is_zero() { signals::KILL } else { container.stop_signal };
    if !still_there(shim.kill(id, None, first, false).await)? {
        return Ok(());
    }
    thaw(shim, id).await;
    if timeout(if grace.is_zero() { KILL_END } else { grace }, shim.wait(id, None)).await.is_ok() {
        return Ok(());
    }
    if still_there(shim.kill(id, None, signals::KILL, true).await)? {
        // A task that even SIGKILL does not end is ended with its VM, by its pod's removal.
        let _ = timeout(KILL_END, shim.wait(id, None)).await;
    }
    Ok(())
}

/// A paused container takes its signal once it goes on. Nothing happens to one that is not paused.
pub(crate) async fn thaw(shim: &Shim, id: &str) {
    if let Err(error) = shim.resume(id).await {
        tracing::debug!("container {id}: {error}");
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

/// Stops every container of a pod: all but the sidecars at once, then those in the reverse order of their start, and
/// then its VM.
pub(crate) async fn stop_pod(engine: &Engine, pod: &PodRecord, grace: Option<Duration>) -> anyhow::Result<()> {
    let dir = engine.pods.open(&pod.id);
    let record = dir.update(|record| record.containers.iter_mut().for_each(|c| c.wanted = Wanted::Stop))?;
    if let Some(shim) = engine.connect(&pod.id).await? {
        let target = Target::of(&shim, &dir, &record);
        let running = record.containers.iter().filter(|c| c.state.has_processes());
        let (sidecars, others): (Vec<_>, Vec<_>) = running.partition(|c| c.kind == Kind::Sidecar);
        let grace_of = |c: &ContainerRecord| grace.unwrap_or(Duration::from_secs(c.stop_timeout));
        let began = Instant::now();
        for result in join_all(others.into_iter().map(|c| end_task(&target, c, grace_of(c)))).await {
            result?;
        }
        // One after the other, the last started first, in what is left of the pod's time.
        for container in sidecars.into_iter().rev() {
            let grace = grace_of(container);
            let left = grace.saturating_sub(began.elapsed()).max(LEAST_GRACE.min(grace));
            end_task(&target, container, left).await?;
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
    engine.pods.open(&found.pod.id).remove_container(&found.container.id)?;
    if found.container.joined {
        size::follow_removal(engine, &found.pod.id).await;
    }
    Ok(())
}

/// Ends the shim with its VM and removes what they have on the host, whatever state they are in. Never fails: what
/// cannot be done now is what the next removal finds.
pub(crate) async fn purge(engine: &Engine, pod: &str, bundle: &Path) {
    match engine.launcher() {
        Ok(launcher) => launcher.purge(pod, bundle).await,
        Err(error) => tracing::warn!("pod {pod}: its remains could not be removed: {error}"),
    }
    // Last: the VMM has held the tap.
    network::detach(engine.paths.run(), pod).await;
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
