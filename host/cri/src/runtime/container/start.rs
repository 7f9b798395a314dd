//! StartContainer.

use std::sync::Arc;

use super::super::Engine;
use super::watch_container;
use crate::api::ContainerEventType;
use crate::error::Error;
use crate::state::{Container, ContainerPhase, now};

/// What kubelet is told when the program could not be executed.
const START_ERROR: &str = "StartError";
const START_ERROR_CODE: i32 = 128;

impl Engine {
    /// Lets a created container run. One that cannot has exited with `StartError`.
    pub(in crate::runtime) async fn start_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), Error> {
        let _alone = container.changing.lock().await;
        if container.phase() != ContainerPhase::Created {
            let text = format!("container {}: only a created container can be started", container.id);
            return Err(Error::FailedPrecondition(text));
        }
        let shim = self.shim(&container.sandbox)?;
        // Before it runs: it may have ended by the time the shim's answer is here, and must not end before it started.
        let started_at = now();
        if let Err(error) = shim.start(&container.id).await {
            let message = error.to_string();
            container.record.update(|record| {
                record.phase = ContainerPhase::Exited {
                    started_at: 0,
                    finished_at: now(),
                    exit_code: START_ERROR_CODE,
                    reason: START_ERROR.to_owned(),
                    message,
                };
            })?;
            self.tell(&container.sandbox, Some(container), ContainerEventType::ContainerStoppedEvent);
            return Err(Error::from(error).context(format!("container {}", container.id)));
        }
        container.record.update(|record| record.phase = ContainerPhase::Running { started_at })?;
        self.tell(&container.sandbox, Some(container), ContainerEventType::ContainerStartedEvent);
        watch_container(self, container, shim);
        tracing::info!(pod = %container.sandbox.id, container = %container.id, "container started");
        Ok(())
    }
}
