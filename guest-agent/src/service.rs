//! `husk.agent.v1` over the agent's state: unpack, check, call, pack.
//!
//! What changes anything runs in a task of its own: a caller that goes away must not leave half of it done.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use husk_agent_api::VERSION;
use husk_agent_api::v1::agent_server;
use husk_agent_api::v1::{
    AdjustClockRequest, AdjustClockResponse, CloseStdinRequest, CloseStdinResponse, ConfigureInterfaceRequest,
    ConfigureInterfaceResponse, ContainerStatsRequest, ContainerStatsResponse, CreateContainerRequest,
    CreateContainerResponse, CreateVolumeRequest, CreateVolumeResponse, EndForwardRequest, EndForwardResponse, Event,
    EventsRequest, ExecProcessRequest, ExecProcessResponse, ForwardRequest, ForwardResponse, HelloRequest,
    HelloResponse, ListProcessesRequest, ListProcessesResponse, MountScratchRequest, MountScratchResponse,
    OnlineCpusRequest, OnlineCpusResponse, PauseContainerRequest, PauseContainerResponse, PlugDeviceRequest,
    PlugDeviceResponse, RemoveContainerRequest, RemoveContainerResponse, RemoveVolumeRequest, RemoveVolumeResponse,
    ResizeTerminalRequest, ResizeTerminalResponse, ResumeContainerRequest, ResumeContainerResponse, ResumeRequest,
    ResumeResponse, ShutdownRequest, ShutdownResponse, SignalProcessRequest, SignalProcessResponse,
    StartContainerRequest, StartContainerResponse, UnplugDeviceRequest, UnplugDeviceResponse, UpdateContainerRequest,
    UpdateContainerResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::agent::Agent;
use crate::cgroup::{Cgroup, stats};
use crate::container::{check, control, create, exec, freeze, processes, usage};
use crate::error::{Error, Result};
use crate::net::{self, forward};
use crate::pod::{clock, cpus, slots};

/// Events that may wait for one slow caller before its replay pauses.
const EVENT_QUEUE: usize = 32;

/// The service.
#[derive(Debug, Clone)]
pub struct Service(pub Arc<Agent>);

type Answer<T> = std::result::Result<Response<T>, Status>;

/// Runs `work` to its end even when the caller goes away.
async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Answer<T> {
    match tokio::spawn(work).await {
        Ok(result) => Ok(Response::new(result?)),
        Err(error) => Err(Status::internal(format!("task: {error}"))),
    }
}

impl Service {
    /// The pod's cgroup for "", else the container's.
    fn cgroup(&self, container_id: &str) -> Result<Cgroup> {
        if container_id.is_empty() {
            Ok(self.0.cgroup.clone())
        } else {
            Ok(self.0.container(container_id)?.cgroup.clone())
        }
    }
}

#[tonic::async_trait]
impl agent_server::Agent for Service {
    async fn hello(&self, request: Request<HelloRequest>) -> Answer<HelloResponse> {
        let theirs = request.into_inner().version.unwrap_or_default();
        if theirs.major != VERSION.major {
            return Err(Status::failed_precondition(format!(
                "the host speaks husk.agent.v1 version {}.{}, this agent {}.{}; use an initramfs of the host's release",
                theirs.major, theirs.minor, VERSION.major, VERSION.minor
            )));
        }
        let memory = rustix::system::sysinfo();
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Response::new(HelloResponse {
            version: Some(VERSION),
            kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            online_cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory_bytes: memory.totalram.saturating_mul(u64::from(memory.mem_unit)),
            main_at_us: self.0.main_at_us,
            listening_at_us: self.0.listening_at_us,
        }))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Answer<ResumeResponse> {
        let agent = Arc::clone(&self.0);
        detached(async move { agent.resume(request.into_inner()).await.map(|()| ResumeResponse {}) }).await
    }

    async fn plug_device(&self, request: Request<PlugDeviceRequest>) -> Answer<PlugDeviceResponse> {
        let agent = Arc::clone(&self.0);
        let slot = request.into_inner().slot;
        detached(async move {
            agent.check_resumed()?;
            agent.slots.plug(slot).await.map(|name| PlugDeviceResponse { name })
        })
        .await
    }

    async fn unplug_device(&self, request: Request<UnplugDeviceRequest>) -> Answer<UnplugDeviceResponse> {
        let agent = Arc::clone(&self.0);
        let slot = request.into_inner().slot;
        detached(async move {
            agent.check_resumed()?;
            agent.slots.unplug(slot).await.map(|()| UnplugDeviceResponse {})
        })
        .await
    }

    async fn online_cpus(&self, request: Request<OnlineCpusRequest>) -> Answer<OnlineCpusResponse> {
        let agent = Arc::clone(&self.0);
        let count = request.into_inner().count;
        detached(async move {
            agent.check_resumed()?;
            slots::blocking(move || cpus::set_online(Path::new(cpus::CPUS), count)).await??;
            Ok(OnlineCpusResponse {})
        })
        .await
    }

    async fn configure_interface(
        &self,
        request: Request<ConfigureInterfaceRequest>,
    ) -> Answer<ConfigureInterfaceResponse> {
        let agent = Arc::clone(&self.0);
        let request = request.into_inner();
        detached(async move {
            agent.check_resumed()?;
            let device = agent.slots.interface(request.slot).await?;
            slots::blocking(move || net::configure(&device, &request)).await??;
            Ok(ConfigureInterfaceResponse {})
        })
        .await
    }

    async fn mount_scratch(&self, request: Request<MountScratchRequest>) -> Answer<MountScratchResponse> {
        let agent = Arc::clone(&self.0);
        let MountScratchRequest { slot, fs_type } = request.into_inner();
        detached(async move {
            agent.check_resumed()?;
            agent.volumes.mount_scratch(&agent.slots, slot, &fs_type).await.map(|()| MountScratchResponse {})
        })
        .await
    }

    async fn create_volume(&self, request: Request<CreateVolumeRequest>) -> Answer<CreateVolumeResponse> {
        let agent = Arc::clone(&self.0);
        let CreateVolumeRequest { name, source, gid } = request.into_inner();
        detached(async move {
            agent.check_resumed()?;
            check::id("name", &name)?;
            let source = source.ok_or_else(|| Error::invalid("source: missing"))?;
            agent.volumes.create(&agent.slots, &name, source, gid).await.map(|()| CreateVolumeResponse {})
        })
        .await
    }

    async fn remove_volume(&self, request: Request<RemoveVolumeRequest>) -> Answer<RemoveVolumeResponse> {
        let agent = Arc::clone(&self.0);
        let name = request.into_inner().name;
        detached(async move {
            check::id("name", &name)?;
            agent.volumes.remove(&agent.slots, &name).await.map(|()| RemoveVolumeResponse {})
        })
        .await
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let agent = Arc::clone(&self.0);
        detached(async move {
            create::create(&agent, request.into_inner()).await.map(|pid| CreateContainerResponse { pid })
        })
        .await
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        detached(async move { exec::start(&container).await.map(|()| StartContainerResponse {}) }).await
    }

    async fn exec_process(&self, request: Request<ExecProcessRequest>) -> Answer<ExecProcessResponse> {
        let agent = Arc::clone(&self.0);
        detached(async move { exec::exec(&agent, request.into_inner()).await.map(|pid| ExecProcessResponse { pid }) })
            .await
    }

    async fn signal_process(&self, request: Request<SignalProcessRequest>) -> Answer<SignalProcessResponse> {
        control::signal(&self.0, &request.into_inner())?;
        Ok(Response::new(SignalProcessResponse {}))
    }

    async fn resize_terminal(&self, request: Request<ResizeTerminalRequest>) -> Answer<ResizeTerminalResponse> {
        let ResizeTerminalRequest { container_id, exec_id, size } = request.into_inner();
        let size = size.ok_or_else(|| Error::invalid("size: missing"))?;
        control::resize(&*self.0.container(&container_id)?, &exec_id, &size)?;
        Ok(Response::new(ResizeTerminalResponse {}))
    }

    async fn close_stdin(&self, request: Request<CloseStdinRequest>) -> Answer<CloseStdinResponse> {
        let CloseStdinRequest { container_id, exec_id } = request.into_inner();
        control::close_stdin(&self.0, &*self.0.container(&container_id)?, &exec_id)?;
        Ok(Response::new(CloseStdinResponse {}))
    }

    async fn update_container(&self, request: Request<UpdateContainerRequest>) -> Answer<UpdateContainerResponse> {
        let UpdateContainerRequest { container_id, resources } = request.into_inner();
        let cgroup = self.cgroup(&container_id)?;
        let limits = self.0.limits(&resources.unwrap_or_default()).await?;
        // A smaller memory limit reclaims until it fits, which the container can draw out.
        let applied = tokio::task::spawn_blocking(move || limits.apply(&cgroup)).await;
        applied.map_err(|error| Error::Internal(format!("worker thread: {error}")))??;
        Ok(Response::new(UpdateContainerResponse {}))
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let id = request.into_inner().container_id;
        if id.is_empty() {
            let mut read = stats::read(&self.0.cgroup)?;
            read.network = net::stats::read();
            return Ok(Response::new(read));
        }
        let container = self.0.container(&id)?;
        // Its processes and their files may be many.
        let read = tokio::task::spawn_blocking(move || usage::read(&container)).await;
        Ok(Response::new(read.map_err(|error| Error::Internal(format!("worker thread: {error}")))??))
    }

    async fn pause_container(&self, request: Request<PauseContainerRequest>) -> Answer<PauseContainerResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        detached(async move { freeze::pause(&container).await.map(|()| PauseContainerResponse {}) }).await
    }

    async fn resume_container(&self, request: Request<ResumeContainerRequest>) -> Answer<ResumeContainerResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        detached(async move { freeze::resume(&container).await.map(|()| ResumeContainerResponse {}) }).await
    }

    async fn list_processes(&self, request: Request<ListProcessesRequest>) -> Answer<ListProcessesResponse> {
        let ListProcessesRequest { container_id, details } = request.into_inner();
        let container = self.0.container(&container_id)?;
        let pids = container.cgroup.processes()?;
        let processes = if details { processes::describe(&container, &pids) } else { Vec::new() };
        Ok(Response::new(ListProcessesResponse { pids, processes }))
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        let agent = Arc::clone(&self.0);
        let id = request.into_inner().container_id;
        detached(async move {
            check::id("container_id", &id)?;
            control::remove(&agent, &id).await.map(|()| RemoveContainerResponse {})
        })
        .await
    }

    async fn adjust_clock(&self, request: Request<AdjustClockRequest>) -> Answer<AdjustClockResponse> {
        let offset = request.into_inner().offset_ns;
        if offset != 0 {
            clock::adjust(offset)?;
        }
        Ok(Response::new(AdjustClockResponse { wall_clock_ns: clock::now() }))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Answer<ForwardResponse> {
        let ForwardRequest { port, token } = request.into_inner();
        self.0.check_resumed()?;
        // Where the caller goes away, so does what would have been its own.
        forward::open(&self.0.streams, port, token).await?;
        Ok(Response::new(ForwardResponse {}))
    }

    async fn end_forward(&self, request: Request<EndForwardRequest>) -> Answer<EndForwardResponse> {
        self.0.streams.remove_port(request.into_inner().token, false);
        Ok(Response::new(EndForwardResponse {}))
    }

    type EventsStream = ReceiverStream<std::result::Result<Event, Status>>;

    async fn events(&self, request: Request<EventsRequest>) -> Answer<Self::EventsStream> {
        let (to, events) = mpsc::channel(EVENT_QUEUE);
        let log = Arc::clone(&self.0.events);
        let after = request.into_inner().after;
        tokio::spawn(async move { log.follow(after, to).await });
        Ok(Response::new(ReceiverStream::new(events)))
    }

    async fn shutdown(&self, _request: Request<ShutdownRequest>) -> Answer<ShutdownResponse> {
        let agent = Arc::clone(&self.0);
        detached(async move { agent.shut_down().await.map(|()| ShutdownResponse {}) }).await
    }
}
