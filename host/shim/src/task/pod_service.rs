//! `husk.shim.v1.Pod`: what containerd's API has no words for.

use std::sync::Arc;

use async_trait::async_trait;
use husk_client::api;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use ttrpc::asynchronous::TtrpcContext;

use super::engine::Engine;
use crate::stdio;

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

    async fn usage(&self, _: &TtrpcContext, request: api::UsageRequest) -> ttrpc::Result<api::Usage> {
        Ok(self.engine.usage(&request.id).await?)
    }

    async fn resize(&self, _: &TtrpcContext, request: api::ResizeRequest) -> ttrpc::Result<api::ResizeResponse> {
        let size = self.engine.resize_pod(&resources(&request)).await?;
        Ok(api::ResizeResponse {
            memory_mib: size.memory_mib,
            vcpus: u32::from(size.vcpus),
            ..api::ResizeResponse::default()
        })
    }

    async fn attach(&self, _: &TtrpcContext, request: api::AttachRequest) -> ttrpc::Result<api::AttachResponse> {
        let api::AttachRequest { container_id, stdin, stdout, stderr, close_stdin, .. } = request;
        let names = stdio::Request { stdin, stdout, stderr, terminal: false };
        self.engine.attach(&container_id, names, close_stdin)?;
        Ok(api::AttachResponse::default())
    }

    async fn forward(&self, _: &TtrpcContext, request: api::ForwardRequest) -> ttrpc::Result<api::ForwardResponse> {
        let api::ForwardRequest { port, stdin, stdout, .. } = request;
        self.engine.forward(port, stdio::Request { stdin, stdout, ..stdio::Request::default() }).await?;
        Ok(api::ForwardResponse::default())
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

/// The request as Task.Update has it.
fn resources(request: &api::ResizeRequest) -> LinuxResources {
    let mut resources = LinuxResources::default();
    if request.memory_bytes > 0 {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(i64::try_from(request.memory_bytes).unwrap_or(i64::MAX)));
        resources.set_memory(Some(memory));
    }
    if request.cpu_quota_us != 0 {
        let mut cpu = LinuxCpu::default();
        cpu.set_quota(Some(request.cpu_quota_us));
        cpu.set_period((request.cpu_period_us > 0).then_some(request.cpu_period_us));
        resources.set_cpu(Some(cpu));
    }
    resources
}
