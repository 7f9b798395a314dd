//! Calls to the agent: one channel, a deadline for each call, and the end of the VM seen at once.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use husk_agent_api::v1::agent_client::AgentClient;
use husk_agent_api::{RPC_PORT, VERSION, v1};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status, Streaming};
use tower::service_fn;

use super::AgentError;
use super::vsock::connect;
use crate::deadlines::Deadlines;
use crate::text;
use crate::vmm::{EndedWatch, ended_now};

/// Largest message of the guest. The largest honest one is a list of process ids.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Between a broken connection and the news that the VM is over.
const END_NEWS: Duration = Duration::from_secs(2);
/// Between two tries to reach an agent that does not listen yet.
const RETRY: Duration = Duration::from_millis(20);

/// The pod's guest agent.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    client: AgentClient<Channel>,
    socket: PathBuf,
    ended: EndedWatch,
    deadlines: Deadlines,
}

impl Agent {
    /// Nothing is sent before the first call.
    pub(crate) fn new(socket: &Path, ended: EndedWatch, deadlines: Deadlines) -> Self {
        let path = socket.to_owned();
        let connector = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { connect(&path, RPC_PORT).await.map(TokioIo::new) }
        });
        // The name is sent as the HTTP authority and means nothing.
        let endpoint = Endpoint::from_static("http://agent").connect_timeout(deadlines.stream);
        let client = AgentClient::new(endpoint.connect_with_connector_lazy(connector));
        Self { client: client.max_decoding_message_size(MAX_MESSAGE), socket: socket.to_owned(), ended, deadlines }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn ended(&self) -> EndedWatch {
        self.ended.clone()
    }

    /// The first call; tried again until the boot deadline while nothing listens.
    pub(crate) async fn hello(&self) -> Result<v1::HelloResponse, AgentError> {
        const CALL: &str = "hello";
        let deadline = self.deadlines.boot;
        let answer = self.bounded(CALL, deadline, async {
            loop {
                let request = v1::HelloRequest { version: Some(VERSION) };
                match self.client.clone().hello(request).await {
                    Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(RETRY).await,
                    result => return result,
                }
            }
        });
        let answer = answer.await?;
        let theirs = answer.version.unwrap_or_default();
        if theirs.major != VERSION.major {
            let shown = |version: v1::Version| format!("{}.{}", version.major, version.minor);
            return Err(AgentError::Version { ours: shown(VERSION), theirs: shown(theirs) });
        }
        Ok(answer)
    }

    pub(crate) async fn resume(&self, request: v1::ResumeRequest) -> Result<(), AgentError> {
        self.call("resume", self.client.clone().resume(request)).await.map(drop)
    }

    /// The device's name in the guest.
    pub(crate) async fn plug_device(&self, slot: u32) -> Result<String, AgentError> {
        let request = v1::PlugDeviceRequest { slot };
        let name = self.call("plug device", self.client.clone().plug_device(request)).await?.name;
        Ok(text::printable(&name, 32))
    }

    pub(crate) async fn unplug_device(&self, slot: u32) -> Result<(), AgentError> {
        let request = v1::UnplugDeviceRequest { slot };
        self.call("unplug device", self.client.clone().unplug_device(request)).await.map(drop)
    }

    pub(crate) async fn online_cpus(&self, count: u32) -> Result<(), AgentError> {
        let request = v1::OnlineCpusRequest { count };
        self.call("online CPUs", self.client.clone().online_cpus(request)).await.map(drop)
    }

    pub(crate) async fn configure_interface(&self, request: v1::ConfigureInterfaceRequest) -> Result<(), AgentError> {
        self.call("configure interface", self.client.clone().configure_interface(request)).await.map(drop)
    }

    pub(crate) async fn mount_scratch(&self, slot: u32) -> Result<(), AgentError> {
        let request = v1::MountScratchRequest { slot, fs_type: "ext4".into() };
        self.call("mount scratch", self.client.clone().mount_scratch(request)).await.map(drop)
    }

    pub(crate) async fn create_volume(&self, request: v1::CreateVolumeRequest) -> Result<(), AgentError> {
        self.call("create volume", self.client.clone().create_volume(request)).await.map(drop)
    }

    pub(crate) async fn remove_volume(&self, name: String) -> Result<(), AgentError> {
        let request = v1::RemoveVolumeRequest { name };
        self.call("remove volume", self.client.clone().remove_volume(request)).await.map(drop)
    }

    pub(crate) async fn create_container(&self, request: v1::CreateContainerRequest) -> Result<u32, AgentError> {
        self.call("create container", self.client.clone().create_container(request)).await.map(|answer| answer.pid)
    }

    pub(crate) async fn start_container(&self, container_id: String) -> Result<(), AgentError> {
        let request = v1::StartContainerRequest { container_id };
        self.call("start container", self.client.clone().start_container(request)).await.map(drop)
    }

    pub(crate) async fn exec_process(&self, request: v1::ExecProcessRequest) -> Result<u32, AgentError> {
        self.call("exec process", self.client.clone().exec_process(request)).await.map(|answer| answer.pid)
    }

    pub(crate) async fn signal_process(&self, request: v1::SignalProcessRequest) -> Result<(), AgentError> {
        self.call("signal process", self.client.clone().signal_process(request)).await.map(drop)
    }

    pub(crate) async fn resize_terminal(&self, request: v1::ResizeTerminalRequest) -> Result<(), AgentError> {
        self.call("resize terminal", self.client.clone().resize_terminal(request)).await.map(drop)
    }

    pub(crate) async fn close_stdin(&self, request: v1::CloseStdinRequest) -> Result<(), AgentError> {
        self.call("close stdin", self.client.clone().close_stdin(request)).await.map(drop)
    }

    pub(crate) async fn update_container(&self, request: v1::UpdateContainerRequest) -> Result<(), AgentError> {
        self.call("update container", self.client.clone().update_container(request)).await.map(drop)
    }

    pub(crate) async fn stats(&self, container_id: String) -> Result<v1::ContainerStatsResponse, AgentError> {
        let request = v1::ContainerStatsRequest { container_id };
        self.call("container stats", self.client.clone().container_stats(request)).await
    }

    pub(crate) async fn pause_container(&self, container_id: String) -> Result<(), AgentError> {
        let request = v1::PauseContainerRequest { container_id };
        self.call("pause container", self.client.clone().pause_container(request)).await.map(drop)
    }

    pub(crate) async fn resume_container(&self, container_id: String) -> Result<(), AgentError> {
        let request = v1::ResumeContainerRequest { container_id };
        self.call("resume container", self.client.clone().resume_container(request)).await.map(drop)
    }

    pub(crate) async fn list_processes(
        &self,
        container_id: String,
        details: bool,
    ) -> Result<v1::ListProcessesResponse, AgentError> {
        let request = v1::ListProcessesRequest { container_id, details };
        self.call("list processes", self.client.clone().list_processes(request)).await
    }

    pub(crate) async fn remove_container(&self, container_id: String) -> Result<(), AgentError> {
        let request = v1::RemoveContainerRequest { container_id };
        self.call("remove container", self.client.clone().remove_container(request)).await.map(drop)
    }

    /// What the guest's wall clock shows after it was moved by `offset_ns`, in nanoseconds since the epoch.
    pub(crate) async fn adjust_clock(&self, offset_ns: i64) -> Result<u64, AgentError> {
        let request = v1::AdjustClockRequest { offset_ns };
        self.call("adjust clock", self.client.clone().adjust_clock(request)).await.map(|answer| answer.wall_clock_ns)
    }

    /// Connects to a port of the guest, for [`super::claim`] with the token.
    pub(crate) async fn forward(&self, request: v1::ForwardRequest) -> Result<(), AgentError> {
        self.call("forward", self.client.clone().forward(request)).await.map(drop)
    }

    pub(crate) async fn end_forward(&self, token: u64) -> Result<(), AgentError> {
        let request = v1::EndForwardRequest { token };
        self.call("end forward", self.client.clone().end_forward(request)).await.map(drop)
    }

    pub(crate) async fn events(&self, after: u64) -> Result<Streaming<v1::Event>, AgentError> {
        self.call("events", self.client.clone().events(v1::EventsRequest { after })).await
    }

    /// The answer may never come: the VM ends with it.
    pub(crate) async fn shutdown(&self, deadline: Duration) -> Result<(), AgentError> {
        let call = self.client.clone();
        self.bounded("shutdown", deadline, async move { { call }.shutdown(v1::ShutdownRequest {}).await })
            .await
            .map(drop)
    }

    async fn call<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, AgentError> {
        self.bounded(name, self.deadlines.agent, call).await
    }

    async fn bounded<T>(
        &self,
        name: &'static str,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, AgentError> {
        let mut ended = self.ended.clone();
        let status = tokio::select! {
            result = tokio::time::timeout(deadline, call) => match result {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(AgentError::Deadline { call: name, after: deadline }),
            },
            end = ended_now(&mut ended) => return Err(end.into()),
        };
        // A VM that ends breaks the connection first; the better news may be just behind.
        if is_broken_connection(&status)
            && let Ok(end) = tokio::time::timeout(END_NEWS, ended_now(&mut ended)).await
        {
            return Err(end.into());
        }
        Err(AgentError::Refused { call: name, code: status.code(), message: text::message(status.message()) })
    }
}

/// tonic gives errors of the transport a source; those that the agent sent have none.
fn is_broken_connection(status: &Status) -> bool {
    std::error::Error::source(status).is_some() || status.code() == Code::Unavailable
}
