//! RemovePodSandbox.

use std::sync::Arc;

use super::super::Engine;
use crate::api::ContainerEventType;
use crate::error::Error;
use crate::state::Sandbox;

impl Engine {
    /// Forgets a pod and its containers, ending first what still runs.
    pub(in crate::runtime) async fn remove_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        self.stop_sandbox(sandbox).await?;
        let _alone = sandbox.changing.lock().await;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container).await?;
        }
        self.sandbox_disk.remove(&sandbox.id)?;
        self.sandboxes.remove(&sandbox.id);
        self.sandbox_names.release(&sandbox.id);
        self.tell(sandbox, None, ContainerEventType::ContainerDeletedEvent);
        tracing::info!(pod = %sandbox.id, "pod removed");
        Ok(())
    }
}
