//! Requests about pods.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::{sandbox, status, to_its_end};
use super::RuntimeServer;
use crate::api::{
    PodSandbox, PodSandboxFilter, PodSandboxStatusRequest, PodSandboxStatusResponse, RemovePodSandboxRequest,
    RemovePodSandboxResponse, RunPodSandboxRequest, RunPodSandboxResponse, StopPodSandboxRequest,
    StopPodSandboxResponse, UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse,
};
use crate::error::Error;
use crate::state::{Sandbox, now};

impl RuntimeServer {
    pub(super) async fn run_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse, Error> {
        let config = request.config.unwrap_or_default();
        let made = sandbox::run_sandbox(Arc::clone(&self.engine), config, request.runtime_handler);
        Ok(RunPodSandboxResponse { pod_sandbox_id: to_its_end(made).await? })
    }

    /// That there is no such pod is as good as stopped.
    pub(super) async fn stop_sandbox(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse, Error> {
        if let Some(sandbox) = self.engine.sandboxes.find(&request.pod_sandbox_id) {
            let engine = Arc::clone(&self.engine);
            to_its_end(async move { engine.stop_sandbox(&sandbox).await }).await?;
        }
        Ok(StopPodSandboxResponse {})
    }

    /// That there is no such pod is as good as removed.
    pub(super) async fn remove_sandbox(
        &self,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse, Error> {
        if let Some(sandbox) = self.engine.sandboxes.find(&request.pod_sandbox_id) {
            let engine = Arc::clone(&self.engine);
            to_its_end(async move { engine.remove_sandbox(&sandbox).await }).await?;
        }
        Ok(RemovePodSandboxResponse {})
    }

    pub(super) async fn sandbox_status(
        &self,
        request: PodSandboxStatusRequest,
    ) -> Result<PodSandboxStatusResponse, Error> {
        let sandbox = self.engine.sandbox(&request.pod_sandbox_id)?;
        let containers = self.engine.containers_of(&sandbox.id);
        Ok(PodSandboxStatusResponse {
            status: Some(status::sandbox(&sandbox)),
            info: if request.verbose { self.sandbox_information(&sandbox).await } else { HashMap::new() },
            containers_statuses: containers.iter().map(|container| status::container(container)).collect(),
            timestamp: now(),
        })
    }

    /// For a person who asks: what the pod's VM is, by its shim.
    async fn sandbox_information(&self, sandbox: &Arc<Sandbox>) -> HashMap<String, String> {
        let inspect = match sandbox.shim() {
            Some(shim) => shim.inspect().await.ok(),
            None => None,
        };
        let record = sandbox.record.get();
        let text = serde_json::json!({
            "runtimeHandler": record.handler,
            "networkNamespace": self.engine.pod_network(&sandbox.id).netns(),
            "cgroupParent": sandbox.config.linux.as_ref().map(|linux| linux.cgroup_parent.as_str()),
            "pid": inspect.as_ref().and_then(|inspect| inspect.vmm_pid),
            "vm": inspect,
        });
        HashMap::from([("info".to_owned(), text.to_string())])
    }

    /// Pods of that id, where an empty one means any. It may be shortened; one that means nothing means no pod.
    pub(super) fn select_sandboxes(&self, id: &str) -> Vec<Arc<Sandbox>> {
        match id {
            "" => self.engine.sandboxes.all(),
            id => self.engine.sandboxes.find(id).into_iter().collect(),
        }
    }

    pub(super) fn sandboxes(&self, filter: PodSandboxFilter) -> Vec<PodSandbox> {
        let all = self.select_sandboxes(&filter.id);
        let state = filter.state.map(|state| state.state);
        let mut listed: Vec<PodSandbox> = all
            .iter()
            .map(|sandbox| status::listed_sandbox(sandbox))
            .filter(|sandbox| state.is_none_or(|state| sandbox.state == state))
            .filter(|sandbox| status::has_labels(&sandbox.labels, &filter.label_selector))
            .collect();
        // The newest first, as crictl shows them.
        listed.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
        listed
    }

    pub(super) async fn resize_sandbox(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse, Error> {
        let sandbox = self.engine.sandbox(&request.pod_sandbox_id)?;
        let engine = Arc::clone(&self.engine);
        let resources = request.resources.unwrap_or_default();
        to_its_end(async move { engine.resize_sandbox(&sandbox, &resources).await }).await?;
        Ok(UpdatePodSandboxResourcesResponse {})
    }
}
