//! Ending a pod.

use std::time::Duration;

use tokio::time::timeout;

use super::Pod;
use crate::vmm::ended_now;

impl Pod {
    /// Ends the pod: asks the agent, which kills the containers and unmounts the scratch disk, then the VMM, then kills
    /// the VMM. `grace` is what the agent has for it. Cannot fail, and may be called again; afterwards nothing is left
    /// on the host but directories and logs, for [`crate::teardown`].
    pub async fn stop(&self, grace: Duration) {
        if !self.has_ended() {
            tracing::info!(pod = self.name, ?grace, "pod stops");
            self.end_vm(grace).await;
        }
        let mut released = self.released.clone();
        let patience = self.deadlines.kill.saturating_mul(2);
        if timeout(patience, released.wait_for(|released| *released)).await.is_err() {
            tracing::warn!(pod = self.name, "the pod's leftovers are not cleared yet");
        }
    }

    /// Whether the VM is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.vmm.ended().borrow().is_some()
    }

    async fn end_vm(&self, grace: Duration) {
        let asked = tokio::time::Instant::now();
        if let Err(error) = self.agent.shutdown(grace).await {
            tracing::debug!(pod = self.name, %error, "guest agent did not shut down");
        } else if self.ends_within(grace.saturating_sub(asked.elapsed())).await {
            return;
        }
        if self.has_ended() {
            return;
        }
        match self.vmm.shutdown().await {
            Ok(()) if self.ends_within(self.deadlines.vmm).await => return,
            Ok(()) => {}
            Err(error) => tracing::debug!(pod = self.name, %error, "VMM did not shut down"),
        }
        self.vmm.kill();
        if !self.ends_within(self.deadlines.kill).await {
            tracing::error!(pod = self.name, pid = self.vmm.pid(), "the VMM survives SIGKILL");
        }
    }

    async fn ends_within(&self, patience: Duration) -> bool {
        timeout(patience, ended_now(&mut self.vmm.ended())).await.is_ok()
    }
}
