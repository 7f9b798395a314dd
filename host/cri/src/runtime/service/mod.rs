//! The gRPC service: CRI's messages in, the engine's operations, CRI's messages out.

mod containers;
mod node;
mod sandboxes;
mod stats;
mod streaming;

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use husk_streaming::Server;
use tonic::{Request, Response, Status};

use super::Engine;
use crate::api::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use crate::api::*;
use crate::daemon::MAX_MESSAGE;
use crate::error::Error;

/// Objects of one message of a list stream.
const CHUNK: usize = 64;

/// Serves RuntimeService.
#[derive(Debug)]
pub struct RuntimeServer {
    engine: Arc<Engine>,
    streaming: Arc<Server>,
}

type Answer<T> = Result<Response<T>, Status>;
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl RuntimeServer {
    /// A server of the engine's pods, whose streams are served by `streaming`.
    #[must_use]
    pub fn service(engine: Arc<Engine>, streaming: Arc<Server>) -> RuntimeServiceServer<Self> {
        RuntimeServiceServer::new(Self { engine, streaming })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    Ok(Response::new(result?))
}

/// A list in messages of some objects each, then the end.
fn in_chunks<T: Send + 'static, M: Send + 'static>(
    mut all: Vec<T>,
    message: impl Fn(Vec<T>) -> M + Send + 'static,
) -> Answer<Messages<M>> {
    let mut chunks = Vec::with_capacity(all.len().div_ceil(CHUNK));
    while !all.is_empty() {
        let rest = all.split_off(all.len().min(CHUNK));
        chunks.push(Ok(message(std::mem::replace(&mut all, rest))));
    }
    Ok(Response::new(Box::pin(stream::iter(chunks))))
}

#[tonic::async_trait]
impl RuntimeService for RuntimeServer {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        answer(Ok(node::version()))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        answer(Ok(self.node_status(request.into_inner().verbose).await))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        answer(Ok(self.runtime_configuration()))
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        // The node's CNI configuration has the pods' addresses; the range that kubelet tells is for runtimes that write it.
        tracing::info!(config = ?request.into_inner().runtime_config, "runtime configuration told");
        answer(Ok(UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        answer(self.run_sandbox(request.into_inner()).await)
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        answer(self.stop_sandbox(request.into_inner()).await)
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        answer(self.remove_sandbox(request.into_inner()).await)
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        answer(self.sandbox_status(request.into_inner()).await)
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let items = self.sandboxes(request.into_inner().filter.unwrap_or_default());
        answer(Ok(ListPodSandboxResponse { items }))
    }

    type StreamPodSandboxesStream = Messages<StreamPodSandboxesResponse>;
    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let all = self.sandboxes(request.into_inner().filter.unwrap_or_default());
        in_chunks(all, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        answer(self.resize_sandbox(request.into_inner()).await)
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        answer(self.create_container(request.into_inner()).await)
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        answer(self.start_container(request.into_inner()).await)
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        answer(self.stop_container(request.into_inner()).await)
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        answer(self.remove_container(request.into_inner()).await)
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let containers = self.containers(&request.into_inner().filter.unwrap_or_default());
        answer(Ok(ListContainersResponse { containers }))
    }

    type StreamContainersStream = Messages<StreamContainersResponse>;
    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let all = self.containers(&request.into_inner().filter.unwrap_or_default());
        in_chunks(all, |containers| StreamContainersResponse { containers })
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        answer(self.container_status(&request.into_inner()))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        answer(self.update_container(request.into_inner()).await)
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        answer(self.reopen_log(&request.into_inner().container_id).await)
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        answer(self.exec_sync(request.into_inner()).await)
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        answer(self.exec_url(request.into_inner()))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        answer(self.attach_url(&request.into_inner()))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        answer(self.port_forward_url(&request.into_inner()))
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        answer(self.one_container_stats(&request.into_inner().container_id).await)
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let stats = self.all_container_stats(&request.into_inner().filter.unwrap_or_default());
        answer(Ok(ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = Messages<StreamContainerStatsResponse>;
    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let all = self.all_container_stats(&request.into_inner().filter.unwrap_or_default());
        in_chunks(all, |container_stats| StreamContainerStatsResponse { container_stats })
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        answer(self.one_sandbox_stats(&request.into_inner().pod_sandbox_id).await)
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let stats = self.all_sandbox_stats(&request.into_inner().filter.unwrap_or_default());
        answer(Ok(ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = Messages<StreamPodSandboxStatsResponse>;
    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let all = self.all_sandbox_stats(&request.into_inner().filter.unwrap_or_default());
        in_chunks(all, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats })
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        answer(Ok(ListMetricDescriptorsResponse { descriptors: self.metric_descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        answer(Ok(ListPodSandboxMetricsResponse { pod_metrics: self.all_sandbox_metrics() }))
    }

    type StreamPodSandboxMetricsStream = Messages<StreamPodSandboxMetricsResponse>;
    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        in_chunks(self.all_sandbox_metrics(), |pod_sandbox_metrics| StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics,
        })
    }

    type GetContainerEventsStream = Messages<ContainerEventResponse>;
    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        Ok(Response::new(self.events()))
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(Status::unimplemented("containers cannot be checkpointed yet"))
    }

    async fn checkpoint_pod(&self, _: Request<CheckpointPodRequest>) -> Answer<CheckpointPodResponse> {
        Err(Status::unimplemented("pods cannot be checkpointed yet"))
    }

    async fn restore_pod(&self, _: Request<RestorePodRequest>) -> Answer<RestorePodResponse> {
        Err(Status::unimplemented("pods cannot be restored yet"))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_stream_tells_each_object_once() {
        let items: Vec<usize> = (0..2 * CHUNK + 1).collect();
        let stream = in_chunks(items.clone(), |chunk| chunk).unwrap().into_inner();
        let chunks: Vec<Vec<usize>> = stream.map(Result::unwrap).collect().await;
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [CHUNK, CHUNK, 1]);
        assert_eq!(chunks.concat(), items);
        let none = in_chunks(Vec::<usize>::new(), |chunk| chunk).unwrap().into_inner();
        assert_eq!(none.count().await, 0);
    }
}
