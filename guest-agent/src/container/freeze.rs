//! Pausing: the cgroup's freezer stops every process of a container where it stands, whatever it forks meanwhile.

use std::time::Duration;

use super::{Container, ExecState, Phase};
use crate::error::{Error, Result};

/// How long processes may take to stop. One that waits for a device or file system does not stop before that answers.
const LIMIT: Duration = Duration::from_secs(10);

/// Stops every process and waits until all have stopped.
///
/// # Errors
///
/// `FailedPrecondition` when the container does not run, or a process of it does not stop in time; then all go on.
pub async fn pause(container: &Container) -> Result<()> {
    change(container, "paused", |phase| matches!(phase, Phase::Running), Phase::Paused)?;
    let frozen = freeze(container).await;
    if frozen.is_err() {
        let _ = container.cgroup.write("cgroup.freeze", "0");
        let _ = change(container, "resumed", |phase| matches!(phase, Phase::Paused), Phase::Running);
    }
    frozen
}

/// Lets every process go on.
///
/// # Errors
///
/// `FailedPrecondition` when the container is not paused.
pub async fn resume(container: &Container) -> Result<()> {
    if !matches!(container.state().phase, Phase::Paused) {
        return Err(Error::precondition(format!("container {} is not paused", container.id)));
    }
    container.cgroup.write("cgroup.freeze", "0")?;
    wait(container, "go on", || Ok(container.cgroup.counter("cgroup.events", "frozen")? == 0)).await?;
    // It may have been killed meanwhile.
    let _ = change(container, "resumed", |phase| matches!(phase, Phase::Paused), Phase::Running);
    Ok(())
}

fn change(container: &Container, action: &str, allowed: impl FnOnce(&Phase) -> bool, to: Phase) -> Result<()> {
    let mut state = container.state();
    if !allowed(&state.phase) {
        let is = match &state.phase {
            Phase::Created { .. } | Phase::Starting => "has not been started",
            Phase::Running => "runs",
            Phase::Paused => "is paused already",
            Phase::Stopped => "has ended",
        };
        return Err(Error::precondition(format!("container {} {is}: it cannot be {action}", container.id)));
    }
    state.phase = to;
    Ok(())
}

async fn freeze(container: &Container) -> Result<()> {
    // A process that is frozen before its execve would let the one who asked for it wait for ever. No new one begins.
    wait(container, "start", || Ok(!container.state().execs.values().any(|exec| matches!(exec, ExecState::Starting))))
        .await?;
    container.cgroup.write("cgroup.freeze", "1")?;
    wait(container, "stop", || Ok(container.cgroup.counter("cgroup.events", "frozen")? == 1)).await
}

async fn wait(container: &Container, what: &str, condition: impl Fn() -> Result<bool>) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    while !condition()? {
        if waited >= LIMIT {
            return Err(Error::precondition(format!(
                "container {}: some process does not {what} within {} s; it waits for a device or file system",
                container.id,
                LIMIT.as_secs()
            )));
        }
        tokio::time::sleep(pause).await;
        waited = waited.saturating_add(pause);
        pause = pause.saturating_mul(2).min(Duration::from_millis(50));
    }
    Ok(())
}
