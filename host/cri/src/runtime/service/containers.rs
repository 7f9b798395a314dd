//! Requests about containers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::{container, status, to_its_end};
use super::RuntimeServer;
use crate::api;
use crate::api::{
    ContainerFilter, ContainerStatusRequest, ContainerStatusResponse, CreateContainerRequest, CreateContainerResponse,
    ExecSyncRequest, ExecSyncResponse, RemoveContainerRequest, RemoveContainerResponse, ReopenContainerLogResponse,
    StartContainerRequest, StartContainerResponse, StopContainerRequest, StopContainerResponse,
    UpdateContainerResourcesRequest, UpdateContainerResourcesResponse,
};
use crate::error::Error;
use crate::state::Container;

impl RuntimeServer {
    pub(super) async fn create_container(
        &self,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse, Error> {
        let sandbox = self.engine.sandbox(&request.pod_sandbox_id)?;
        let config = request.config.unwrap_or_default();
        let made = container::create_container(Arc::clone(&self.engine), sandbox, config);
        Ok(CreateContainerResponse { container_id: to_its_end(made).await? })
    }

    pub(super) async fn start_container(
        &self,
        request: StartContainerRequest,
    ) -> Result<StartContainerResponse, Error> {
        let container = self.engine.container(&request.container_id)?;
        let engine = Arc::clone(&self.engine);
        to_its_end(async move { engine.start_container(&container).await }).await?;
        Ok(StartContainerResponse {})
    }

    /// That there is no such container is as good as stopped.
    pub(super) async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse, Error> {
        if let Some(container) = self.engine.containers.find(&request.container_id) {
            let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
            let engine = Arc::clone(&self.engine);
            to_its_end(async move { engine.stop_container(&container, grace).await }).await?;
        }
        Ok(StopContainerResponse {})
    }

    /// That there is no such container is as good as removed.
    pub(super) async fn remove_container(
        &self,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse, Error> {
        if let Some(container) = self.engine.containers.find(&request.container_id) {
            let engine = Arc::clone(&self.engine);
            to_its_end(async move { engine.remove_container(&container).await }).await?;
        }
        Ok(RemoveContainerResponse {})
    }

    /// Containers of that id and of that pod, where an empty one means any. Ids may be shortened; one that means nothing
    /// means no container.
    pub(super) fn select(&self, id: &str, sandbox: &str) -> Vec<Arc<Container>> {
        let mut all = match id {
            "" => self.engine.containers.all(),
            id => self.engine.containers.find(id).into_iter().collect(),
        };
        if !sandbox.is_empty() {
            let sandbox = self.engine.sandboxes.find(sandbox);
            all.retain(|container| sandbox.as_ref().is_some_and(|sandbox| sandbox.id == container.sandbox.id));
        }
        all
    }

    pub(super) fn containers(&self, filter: &ContainerFilter) -> Vec<api::Container> {
        let all = self.select(&filter.id, &filter.pod_sandbox_id);
        let state = filter.state.map(|state| state.state);
        let mut listed: Vec<api::Container> = all
            .iter()
            .map(|container| status::listed_container(container))
            .filter(|container| state.is_none_or(|state| container.state == state))
            .filter(|container| status::has_labels(&container.labels, &filter.label_selector))
            .collect();
        listed.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        listed
    }

    pub(super) fn container_status(&self, request: &ContainerStatusRequest) -> Result<ContainerStatusResponse, Error> {
        let container = self.engine.container(&request.container_id)?;
        let mut info = HashMap::new();
        if request.verbose {
            let text = serde_json::json!({
                "sandboxID": container.sandbox.id,
                "runtimeHandler": container.sandbox.record.get().handler,
                "bundle": self.engine.bundle(&container.id),
            });
            info.insert("info".to_owned(), text.to_string());
        }
        Ok(ContainerStatusResponse { status: Some(status::container(&container)), info })
    }

    pub(super) async fn update_container(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse, Error> {
        if request.windows.is_some() {
            return Err(Error::InvalidArgument("windows is set; the guest is Linux".into()));
        }
        let container = self.engine.container(&request.container_id)?;
        let engine = Arc::clone(&self.engine);
        let wanted = request.linux.unwrap_or_default();
        to_its_end(async move { engine.update_container(&container, &wanted).await }).await?;
        Ok(UpdateContainerResourcesResponse {})
    }

    pub(super) async fn reopen_log(&self, id: &str) -> Result<ReopenContainerLogResponse, Error> {
        let container = self.engine.container(id)?;
        if !container.phase().is_running() {
            return Err(Error::FailedPrecondition(format!("container {} is not running", container.id)));
        }
        self.engine.shim(&container.sandbox)?.reopen_log(&container.id).await?;
        Ok(ReopenContainerLogResponse {})
    }

    pub(super) async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, Error> {
        let container = self.engine.container(&request.container_id)?;
        let limit = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
        let engine = Arc::clone(&self.engine);
        to_its_end(async move { engine.exec_sync(&container, &request.cmd, limit).await }).await
    }
}
