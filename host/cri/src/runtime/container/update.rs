//! UpdateContainerResources.

use std::sync::Arc;

use prost::Message as _;

use super::super::Engine;
use crate::api::LinuxContainerResources;
use crate::error::Error;
use crate::spec;
use crate::state::{Container, ContainerPhase};

impl Engine {
    /// Changes what a container's cgroup enforces, all of it or nothing.
    pub(in crate::runtime) async fn update_container(
        &self,
        container: &Arc<Container>,
        wanted: &LinuxContainerResources,
    ) -> Result<(), Error> {
        let _alone = container.changing.lock().await;
        match container.phase() {
            ContainerPhase::Created | ContainerPhase::Running { .. } => {}
            ContainerPhase::Making | ContainerPhase::Exited { .. } => {
                let text = format!("container {} has ended: its resources cannot be changed", container.id);
                return Err(Error::FailedPrecondition(text));
            }
        }
        self.shim(&container.sandbox)?.update(&container.id, &spec::resources(wanted)).await?;
        let now = spec::merged(&container.resources(), wanted);
        container.record.update(|record| record.resources = now.encode_to_vec())?;
        Ok(())
    }
}
