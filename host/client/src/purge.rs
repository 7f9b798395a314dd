//! Ending a pod, whatever state it is in.

use std::path::Path;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::error::{ConnectError, TaskError};
use crate::launch::ShimLauncher;
use crate::shim::Shim;

/// How long a VM may take to end after it was asked to; the shim itself has smaller bounds.
const SANDBOX_END: Duration = Duration::from_secs(30);
/// How long a shim may take to see that its VM has gone.
const SHIM_END: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
const SIGTERM: u32 = 15;

impl ShimLauncher {
    /// Ends the shim with its VM and removes what they have on the host. Idempotent; never fails: what cannot be done now
    /// is what the next removal finds.
    pub async fn purge(&self, pod: &str, bundle: &Path) {
        let mut left = None;
        match Shim::connect(&self.dirs, &self.namespace, pod).await {
            Ok(shim) => match timeout(SANDBOX_END, end(&shim)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!("pod {pod}: {error}");
                    left = Some(shim);
                }
                Err(_) => tracing::debug!("pod {pod}: its VM did not end within {} s", SANDBOX_END.as_secs()),
            },
            Err(ConnectError::NotRunning { .. }) => {}
            Err(error) => tracing::debug!("pod {pod}: {error}"),
        }
        if self.has_remains(pod)
            && let Err(error) = self.delete_dead(pod, bundle).await
        {
            tracing::warn!("pod {pod}: its remains could not be removed: {error}");
        }
        // A pod that was being made could not be ended; with its VM gone it fails, and its shim can be.
        if let Some(shim) = left
            && timeout(SHIM_END, end_at_last(&shim)).await.is_err()
        {
            tracing::debug!("pod {pod}: its shim did not end within {} s", SHIM_END.as_secs());
        }
    }

    /// Whether the shim has left anything of a pod on this host.
    #[must_use]
    pub fn has_remains(&self, pod: &str) -> bool {
        [self.dirs.shim_state(&self.namespace, pod), self.dirs.pod_data(&self.namespace, pod)]
            .into_iter()
            .flatten()
            .any(|path| path.exists())
    }
}

/// Ends the pod, and with it the shim.
async fn end(shim: &Shim) -> Result<(), TaskError> {
    let pod = shim.pod();
    if still_there(shim.kill(pod, None, SIGTERM, false).await)? {
        shim.wait(pod, None).await?;
    }
    // Whoever looked after the containers deletes them, unless it has died, or waits for a reader of its output; and
    // while there is one the shim does not end.
    for container in shim.inspect().await.map(|inspect| inspect.containers).unwrap_or_default() {
        let _ = shim.wait(&container.id, None).await;
        let _ = shim.delete(&container.id, None).await;
    }
    match shim.delete(pod, None).await {
        Ok(_) | Err(TaskError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    shim.shutdown().await
}

/// Asks the shim to end until it has.
async fn end_at_last(shim: &Shim) {
    while !matches!(shim.state(shim.pod(), None).await, Err(TaskError::Unavailable(_))) {
        let _ = end(shim).await;
        sleep(POLL).await;
    }
}

/// Whether there was still something to signal, by what a kill answered.
///
/// # Errors
///
/// What is neither an answer to that nor success.
pub fn still_there(killed: Result<(), TaskError>) -> Result<bool, TaskError> {
    match killed {
        Ok(()) => Ok(true),
        Err(TaskError::NotFound(_) | TaskError::FailedPrecondition(_) | TaskError::Unavailable(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
