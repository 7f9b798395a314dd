//! The end of a pod that nobody asked for.

use std::sync::Arc;

use husk_client::Shim;

use super::super::Engine;
use crate::api::ContainerEventType;
use crate::state::{Sandbox, SandboxPhase};
use crate::stats;

/// Waits for the VM's end and notes it, and has it looked at meanwhile. What the pod has on the host goes with StopPodSandbox, which kubelet calls for
/// every pod that is not ready.
pub(in crate::runtime) fn watch_sandbox(engine: &Arc<Engine>, sandbox: &Arc<Sandbox>, shim: Shim) {
    stats::watch(engine, sandbox, shim.clone());
    let (engine, sandbox) = (Arc::clone(engine), Arc::clone(sandbox));
    tokio::spawn(async move {
        match shim.wait(&sandbox.id, None).await {
            Ok(exit) => tracing::info!(pod = %sandbox.id, code = exit.code, "the pod's VM has ended"),
            Err(error) => tracing::warn!(pod = %sandbox.id, "the pod's shim is gone: {error}"),
        }
        engine.not_ready(&sandbox);
    });
}

impl Engine {
    /// Notes that the pod has ended, once.
    pub(in crate::runtime) fn not_ready(&self, sandbox: &Arc<Sandbox>) {
        let was_ready = sandbox.is_ready();
        if let Err(error) = sandbox.record.update(|record| record.phase = SandboxPhase::NotReady) {
            tracing::error!(pod = %sandbox.id, "its end cannot be written down: {error}");
        }
        if was_ready {
            self.tell(sandbox, None, ContainerEventType::ContainerStoppedEvent);
        }
    }
}
