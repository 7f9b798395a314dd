//! `husk.shim.v1.Pod`: what containerd's API has no words for.

use std::sync::Arc;

use async_trait::async_trait;
use husk_client::api;
use ttrpc::asynchronous::TtrpcContext;

use super::engine::Engine;

#[derive(Debug)]
pub(super) struct PodService {
    engine: Arc<Engine>,
}

impl PodService {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[async_trait]
impl api::Pod for PodService {
    async fn inspect(&self, _: &TtrpcContext, _: api::InspectRequest) -> ttrpc::Result<api::PodInspect> {
        Ok(self.engine.inspect())
    }

    async fn processes(
        &self,
        _: &TtrpcContext,
        request: api::ProcessesRequest,
    ) -> ttrpc::Result<api::ProcessesResponse> {
        let processes = self.engine.processes(&request.container_id).await?;
        Ok(api::ProcessesResponse { processes, ..api::ProcessesResponse::default() })
    }

    async fn stats(&self, _: &TtrpcContext, _: api::StatsRequest) -> ttrpc::Result<api::PodStats> {
        Ok(self.engine.host_stats()?)
    }

    async fn reopen_log(
        &self,
        _: &TtrpcContext,
        request: api::ReopenLogRequest,
    ) -> ttrpc::Result<api::ReopenLogResponse> {
        self.engine.reopen_log(&request.container_id)?;
        Ok(api::ReopenLogResponse::default())
    }
}
