//! RemoveContainer.

use std::sync::Arc;
use std::time::Duration;

use husk_client::TaskError;

use super::super::{Engine, remove_directory};
use crate::api::ContainerEventType;
use crate::error::Error;
use crate::state::Container;

impl Engine {
    /// Forgets a container, ending it first when it runs. Its log stays: it is kubelet's.
    pub(in crate::runtime) async fn remove_container(&self, container: &Arc<Container>) -> Result<(), Error> {
        self.stop_container(container, Duration::ZERO).await?;
        let _alone = container.changing.lock().await;
        if self.containers.find(&container.id).is_none() {
            // Somebody else was faster.
            return Ok(());
        }
        if let Some(shim) = container.sandbox.shim() {
            match shim.delete(&container.id, None).await {
                Ok(_) | Err(TaskError::NotFound(_) | TaskError::Unavailable(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.container_disk.remove(&container.id)?;
        self.containers.remove(&container.id);
        self.container_names.release(&container.id);
        remove_directory(&self.bundle(&container.id));
        self.tell(&container.sandbox, Some(container), ContainerEventType::ContainerDeletedEvent);
        tracing::info!(pod = %container.sandbox.id, container = %container.id, "container removed");
        Ok(())
    }
}
