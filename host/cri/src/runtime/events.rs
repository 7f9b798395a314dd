//! What happens to containers, for whoever listens (GetContainerEvents, kubelet's evented PLEG).

use std::sync::Arc;

use tokio::sync::broadcast;

use super::Engine;
use crate::api::{ContainerEventResponse, ContainerEventType};
use crate::state::{Container, Sandbox, now};

/// Events that a slow listener may be behind; it then loses the oldest, and kubelet's relist finds what they told.
const BACKLOG: usize = 1024;

#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<ContainerEventResponse>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Events {
    pub(crate) fn listen(&self) -> broadcast::Receiver<ContainerEventResponse> {
        self.0.subscribe()
    }
}

impl Engine {
    /// Tells of a container. Of the pod itself it is told as of a container with the pod's id, as containerd does.
    pub(crate) fn tell(&self, sandbox: &Arc<Sandbox>, container: Option<&Container>, what: ContainerEventType) {
        if self.events.0.receiver_count() == 0 {
            return;
        }
        let id = container.map_or(&sandbox.id, |container| &container.id);
        let event = ContainerEventResponse {
            container_id: id.clone(),
            container_event_type: what.into(),
            created_at: now(),
            pod_sandbox_status: Some(super::status::sandbox(sandbox)),
            containers_statuses: self.containers_of(&sandbox.id).iter().map(|c| super::status::container(c)).collect(),
        };
        // That nobody listens any more is no error.
        let _ = self.events.0.send(event);
    }
}
