//! An agent without a guest: it remembers what it was asked and answers as told.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Mutex;

use husk_agent_api::v1::agent_server::Agent;
use husk_agent_api::{VERSION, v1};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use crate::behaviour::Behaviour;

/// Nobody listens there; on every other port somebody does.
const CLOSED_PORT: u32 = 1;

type Answer<T> = Result<Response<T>, Status>;

pub(crate) struct FakeAgent {
    behaviour: Behaviour,
    exit: Box<dyn Fn(u8) + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tokens: BTreeSet<u64>,
    containers: BTreeMap<String, BTreeSet<String>>,
    volumes: BTreeSet<String>,
    plugged: BTreeSet<u32>,
    events: Vec<v1::Event>,
    listeners: Vec<mpsc::Sender<Result<v1::Event, Status>>>,
}

impl FakeAgent {
    pub(crate) fn new(behaviour: Behaviour, exit: Box<dyn Fn(u8) + Send + Sync>) -> Self {
        Self { behaviour, exit, state: Mutex::default() }
    }

    pub(crate) fn take_token(&self, token: u64) -> bool {
        self.state.lock().unwrap().tokens.remove(&token)
    }

    /// Dies, hangs or refuses when this call is the one.
    async fn enter(&self, call: &str) -> Result<(), Status> {
        self.behaviour.maybe_die(call);
        if self.behaviour.wants("hang", call) {
            std::future::pending::<()>().await;
        }
        if self.behaviour.wants("refuse", call) {
            // What a hostile guest would like to see in the host's log.
            let message = format!("\x1b[2J\nhost: all is well {}", "x".repeat(3000));
            return Err(Status::new(Code::FailedPrecondition, message));
        }
        Ok(())
    }

    fn take_stdio(&self, process: Option<v1::Process>) {
        let stdio = process.and_then(|process| process.stdio).unwrap_or_default();
        let tokens = [stdio.stdin, stdio.stdout, stdio.stderr];
        self.state.lock().unwrap().tokens.extend(tokens.into_iter().filter(|token| *token != 0));
    }

    fn emit(&self, kind: v1::event::Kind) {
        let mut state = self.state.lock().unwrap();
        let sequence = u64::try_from(state.events.len()).unwrap() + 1;
        let event = v1::Event { sequence, time_ns: 1, kind: Some(kind) };
        state.events.push(event.clone());
        state.listeners.retain(|listener| listener.try_send(Ok(event.clone())).is_ok());
        if self.behaviour.has("break-events") {
            state.listeners.clear();
        }
    }

    fn exited(&self, container_id: &str, exec_id: &str, exit_code: u32) {
        let (container_id, exec_id) = (container_id.into(), exec_id.into());
        self.emit(v1::event::Kind::Exited(v1::ProcessExited { container_id, exec_id, exit_code, oom_killed: false }));
    }
}

#[tonic::async_trait]
impl Agent for FakeAgent {
    async fn hello(&self, _: Request<v1::HelloRequest>) -> Answer<v1::HelloResponse> {
        self.enter("hello").await?;
        let version = if self.behaviour.has("old-agent") { v1::Version { major: 0, minor: 9 } } else { VERSION };
        Ok(Response::new(v1::HelloResponse {
            version: Some(version),
            kernel_release: "6.12.0\x1b[31m".into(),
            online_cpus: 1,
            memory_bytes: 1 << 28,
            main_at_us: 10,
            listening_at_us: 20,
        }))
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Answer<v1::ResumeResponse> {
        self.enter("resume").await?;
        let request = request.into_inner();
        if request.entropy.len() < 32 || request.hostname.is_empty() || request.wall_clock_ns == 0 {
            return Err(Status::invalid_argument("no identity"));
        }
        Ok(Response::new(v1::ResumeResponse {}))
    }

    async fn plug_device(&self, request: Request<v1::PlugDeviceRequest>) -> Answer<v1::PlugDeviceResponse> {
        self.enter("plug-device").await?;
        let slot = request.into_inner().slot;
        let first = self.state.lock().unwrap().plugged.insert(slot);
        if first {
            Ok(Response::new(v1::PlugDeviceResponse { name: "vda".into() }))
        } else {
            Err(Status::already_exists("slot"))
        }
    }

    async fn unplug_device(&self, request: Request<v1::UnplugDeviceRequest>) -> Answer<v1::UnplugDeviceResponse> {
        self.enter("unplug-device").await?;
        if self.behaviour.has("busy-devices") {
            return Err(Status::failed_precondition("it is mounted"));
        }
        self.state.lock().unwrap().plugged.remove(&request.into_inner().slot);
        Ok(Response::new(v1::UnplugDeviceResponse {}))
    }

    async fn online_cpus(&self, _: Request<v1::OnlineCpusRequest>) -> Answer<v1::OnlineCpusResponse> {
        self.enter("online-cpus").await?;
        Ok(Response::new(v1::OnlineCpusResponse {}))
    }

    async fn configure_interface(
        &self,
        _: Request<v1::ConfigureInterfaceRequest>,
    ) -> Answer<v1::ConfigureInterfaceResponse> {
        self.enter("configure-interface").await?;
        Ok(Response::new(v1::ConfigureInterfaceResponse {}))
    }

    async fn mount_scratch(&self, _: Request<v1::MountScratchRequest>) -> Answer<v1::MountScratchResponse> {
        self.enter("mount-scratch").await?;
        Ok(Response::new(v1::MountScratchResponse {}))
    }

    async fn create_volume(&self, request: Request<v1::CreateVolumeRequest>) -> Answer<v1::CreateVolumeResponse> {
        self.enter("create-volume").await?;
        let name = request.into_inner().name;
        let first = self.state.lock().unwrap().volumes.insert(name);
        if first { Ok(Response::new(v1::CreateVolumeResponse {})) } else { Err(Status::already_exists("volume")) }
    }

    async fn remove_volume(&self, request: Request<v1::RemoveVolumeRequest>) -> Answer<v1::RemoveVolumeResponse> {
        self.enter("remove-volume").await?;
        self.state.lock().unwrap().volumes.remove(&request.into_inner().name);
        Ok(Response::new(v1::RemoveVolumeResponse {}))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        self.enter("create").await?;
        let request = request.into_inner();
        if request.root_fs.is_none_or(|root| root.lower_slots.is_empty()) {
            return Err(Status::invalid_argument("root_fs"));
        }
        let first = self.state.lock().unwrap().containers.insert(request.container_id, BTreeSet::new()).is_none();
        if !first {
            return Err(Status::already_exists("container"));
        }
        self.take_stdio(request.process);
        Ok(Response::new(v1::CreateContainerResponse { pid: 7 }))
    }

    async fn start_container(&self, request: Request<v1::StartContainerRequest>) -> Answer<v1::StartContainerResponse> {
        self.enter("start").await?;
        let id = request.into_inner().container_id;
        if self.behaviour.has("forge-events") {
            self.exited("../../etc", "", 0);
            self.exited("somebody-else", "", 0);
            self.exited(&id, "no-such-exec", 0);
            self.exited(&id, "", 99_999);
            self.emit(v1::event::Kind::Oom(v1::OutOfMemory { container_id: "\n\n".into(), oom_kill: 1 }));
        }
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn exec_process(&self, request: Request<v1::ExecProcessRequest>) -> Answer<v1::ExecProcessResponse> {
        self.enter("exec").await?;
        let request = request.into_inner();
        self.take_stdio(request.process);
        if let Some(execs) = self.state.lock().unwrap().containers.get_mut(&request.container_id) {
            execs.insert(request.exec_id);
        }
        Ok(Response::new(v1::ExecProcessResponse { pid: 8 }))
    }

    async fn signal_process(&self, request: Request<v1::SignalProcessRequest>) -> Answer<v1::SignalProcessResponse> {
        self.enter("signal").await?;
        let request = request.into_inner();
        self.exited(&request.container_id, &request.exec_id, 128 + request.signal);
        Ok(Response::new(v1::SignalProcessResponse {}))
    }

    async fn resize_terminal(&self, _: Request<v1::ResizeTerminalRequest>) -> Answer<v1::ResizeTerminalResponse> {
        self.enter("resize").await?;
        Ok(Response::new(v1::ResizeTerminalResponse {}))
    }

    async fn close_stdin(&self, _: Request<v1::CloseStdinRequest>) -> Answer<v1::CloseStdinResponse> {
        self.enter("close-stdin").await?;
        Ok(Response::new(v1::CloseStdinResponse {}))
    }

    async fn update_container(&self, _: Request<v1::UpdateContainerRequest>) -> Answer<v1::UpdateContainerResponse> {
        self.enter("update").await?;
        Ok(Response::new(v1::UpdateContainerResponse {}))
    }

    async fn container_stats(&self, _: Request<v1::ContainerStatsRequest>) -> Answer<v1::ContainerStatsResponse> {
        self.enter("stats").await?;
        let memory_usage = if self.behaviour.has("uses-much") { 300 << 20 } else { 4096 };
        Ok(Response::new(v1::ContainerStatsResponse { memory_usage, ..Default::default() }))
    }

    async fn list_processes(&self, _: Request<v1::ListProcessesRequest>) -> Answer<v1::ListProcessesResponse> {
        self.enter("list").await?;
        let count = if self.behaviour.has("huge-list") { 4_000_000 } else { 1 };
        Ok(Response::new(v1::ListProcessesResponse { pids: vec![u32::MAX; count], processes: Vec::new() }))
    }

    async fn pause_container(&self, _: Request<v1::PauseContainerRequest>) -> Answer<v1::PauseContainerResponse> {
        self.enter("pause").await?;
        Ok(Response::new(v1::PauseContainerResponse {}))
    }

    async fn resume_container(&self, _: Request<v1::ResumeContainerRequest>) -> Answer<v1::ResumeContainerResponse> {
        self.enter("unpause").await?;
        Ok(Response::new(v1::ResumeContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        self.enter("remove").await?;
        self.state.lock().unwrap().containers.remove(&request.into_inner().container_id);
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn adjust_clock(&self, _: Request<v1::AdjustClockRequest>) -> Answer<v1::AdjustClockResponse> {
        self.enter("adjust-clock").await?;
        Ok(Response::new(v1::AdjustClockResponse { wall_clock_ns: u64::MAX }))
    }

    async fn forward(&self, request: Request<v1::ForwardRequest>) -> Answer<v1::ForwardResponse> {
        self.enter("forward").await?;
        let v1::ForwardRequest { port, token } = request.into_inner();
        if port == CLOSED_PORT {
            return Err(Status::not_found("nobody listens"));
        }
        self.state.lock().unwrap().tokens.insert(token);
        Ok(Response::new(v1::ForwardResponse {}))
    }

    async fn end_forward(&self, request: Request<v1::EndForwardRequest>) -> Answer<v1::EndForwardResponse> {
        self.enter("end-forward").await?;
        self.state.lock().unwrap().tokens.remove(&request.into_inner().token);
        Ok(Response::new(v1::EndForwardResponse {}))
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

    async fn events(&self, request: Request<v1::EventsRequest>) -> Answer<Self::EventsStream> {
        self.enter("events").await?;
        let after = request.into_inner().after;
        let (sender, receiver) = mpsc::channel(64);
        let mut state = self.state.lock().unwrap();
        for event in state.events.iter().filter(|event| event.sequence > after) {
            sender.try_send(Ok(event.clone())).unwrap();
        }
        state.listeners.push(sender);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn shutdown(&self, _: Request<v1::ShutdownRequest>) -> Answer<v1::ShutdownResponse> {
        self.enter("shutdown").await?;
        (self.exit)(0);
        Ok(Response::new(v1::ShutdownResponse {}))
    }
}
