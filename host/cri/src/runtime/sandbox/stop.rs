//! StopPodSandbox.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::super::Engine;
use crate::config::Handler;
use crate::error::Error;
use crate::state::Sandbox;

/// How long the record of a container's end may take once its VM is gone.
const RECORDED: Duration = Duration::from_secs(10);

impl Engine {
    /// Ends a pod's containers, its VM and its network. Kubelet calls it again and again; of two calls at a time the
    /// second finds the work done.
    pub(in crate::runtime) async fn stop_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        let _alone = sandbox.changing.lock().await;
        let running: Vec<_> = self.containers_of(&sandbox.id);
        // A container that cannot be ended by itself goes with the VM.
        for stopped in join_all(running.iter().map(|container| self.stop_container(container, Duration::ZERO))).await {
            if let Err(error) = stopped {
                tracing::warn!(pod = %sandbox.id, "{error}");
            }
        }
        self.not_ready(sandbox);
        self.undo(sandbox, &self.handler_of(sandbox)).await;
        for container in &running {
            // Those that ran are noted by their watchers; those that never did have no watcher.
            if tokio::time::timeout(RECORDED, self.note_end_with_pod(container)).await.is_err() {
                tracing::warn!(pod = %sandbox.id, container = %container.id, "its end is not known");
            }
        }
        Ok(())
    }

    /// How the pod's handler is configured now; one that has been taken out of the configuration meanwhile has left pods
    /// that can be ended all the same.
    pub(in crate::runtime) fn handler_of(&self, sandbox: &Sandbox) -> Handler {
        let name = sandbox.record.with(|record| record.handler.clone());
        self.config.handler(&name).unwrap_or_default()
    }
}
