//! UpdatePodSandboxResources: a real resize of the VM.

use std::sync::Arc;

use super::super::Engine;
use crate::api::LinuxContainerResources;
use crate::error::Error;
use crate::state::Sandbox;

impl Engine {
    /// Makes the pod as large as kubelet says its containers are together. The overhead is the RuntimeClass's and does
    /// not count as theirs.
    pub(in crate::runtime) async fn resize_sandbox(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        resources: &LinuxContainerResources,
    ) -> Result<(), Error> {
        let _alone = sandbox.changing.lock().await;
        let shim = self.shim(sandbox)?;
        let memory = u64::try_from(resources.memory_limit_in_bytes).ok().filter(|bytes| *bytes > 0);
        let period = u64::try_from(resources.cpu_period).unwrap_or_default();
        let cpu = (resources.cpu_quota != 0).then_some((resources.cpu_quota, period));
        if memory.is_none() && cpu.is_none() {
            return Ok(());
        }
        let (mib, vcpus) = shim.resize_pod(memory, cpu).await?;
        tracing::info!(pod = %sandbox.id, memory_mib = mib, vcpus, "pod resized");
        Ok(())
    }
}
