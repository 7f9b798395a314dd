//! A client of the agent with the few verbs that the cases need.

use std::path::Path;
use std::time::Duration;

use husk_agent_api::v1::agent_client::AgentClient;
use husk_agent_api::v1::{
    Capabilities, CreateContainerRequest, Event, EventsRequest, ExecProcessRequest, KernelMount, Mount, Process,
    ProcessExited, RemoveContainerRequest, RootFs, StartContainerRequest, Stdio, User, event, mount::Kind,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub(crate) const RPC: &str = "/tmp/rpc";
pub(crate) const STDIO: &str = "/tmp/stdio";
/// What Docker gives a container.
pub(crate) const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;

/// Slots of the base image, the upper image and the scratch disk.
pub(crate) static SLOTS: std::sync::OnceLock<[u32; 3]> = std::sync::OnceLock::new();

/// A client, and the tokens that it has given out.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) agent: AgentClient<Channel>,
}

/// How a process ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) oom_killed: bool,
}

pub(crate) fn token() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The process `sh -c script` with pipes for its output.
pub(crate) fn shell(script: &str) -> Process {
    let set = DEFAULT_CAPABILITIES;
    Process {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        user: Some(User::default()),
        capabilities: Some(Capabilities { bounding: set, effective: set, permitted: set, ..Capabilities::default() }),
        stdio: Some(Stdio { stdin: 0, stdout: token(), stderr: token() }),
        ..Process::default()
    }
}

pub(crate) fn kernel(fs_type: &str, destination: &str, flags: u64, data: &str) -> Mount {
    let kind = Kind::Kernel(KernelMount { fs_type: fs_type.to_owned(), data: data.to_owned() });
    Mount { destination: destination.to_owned(), flags, kind: Some(kind), ..Mount::default() }
}

/// A container with the mounts that runtimes give it.
pub(crate) fn container(id: &str, process: Process) -> CreateContainerRequest {
    const NOSUID: u64 = 2;
    const NODEV: u64 = 4;
    const NOEXEC: u64 = 8;
    CreateContainerRequest {
        container_id: id.to_owned(),
        root_fs: Some(RootFs { lower_slots: vec![SLOTS.get().unwrap()[0]], read_only: false }),
        mounts: vec![
            kernel("proc", "/proc", NOSUID | NODEV | NOEXEC, ""),
            kernel("tmpfs", "/dev", NOSUID, "mode=755,size=65536k"),
            kernel("devpts", "/dev/pts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
            kernel("mqueue", "/dev/mqueue", NOSUID | NODEV | NOEXEC, ""),
            kernel("sysfs", "/sys", NOSUID | NODEV | NOEXEC | 1, ""),
            kernel("cgroup2", "/sys/fs/cgroup", NOSUID | NODEV | NOEXEC | 1, ""),
        ],
        process: Some(process),
        ..CreateContainerRequest::default()
    }
}

pub(crate) async fn attach(token: u64) -> Result<UnixStream, u8> {
    let mut stream = UnixStream::connect(STDIO).await.unwrap();
    stream.write_u64_le(token).await.unwrap();
    match stream.read_u8().await.unwrap() {
        0 => Ok(stream),
        refused => Err(refused),
    }
}

pub(crate) async fn read_all(token: u64) -> String {
    if token == 0 {
        return String::new();
    }
    let mut bytes = Vec::new();
    attach(token).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Client {
    pub(crate) async fn connect() -> Self {
        let connect = |_| async { UnixStream::connect(Path::new(RPC)).await.map(hyper_util::rt::TokioIo::new) };
        let channel =
            Endpoint::from_static("http://agent").connect_with_connector(tower::service_fn(connect)).await.unwrap();
        Self { agent: AgentClient::new(channel) }
    }

    pub(crate) async fn create(&self, request: CreateContainerRequest) -> Result<u32, Status> {
        self.agent.clone().create_container(request).await.map(|answer| answer.into_inner().pid)
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), Status> {
        let request = StartContainerRequest { container_id: id.to_owned() };
        self.agent.clone().start_container(request).await.map(drop)
    }

    pub(crate) async fn remove(&self, id: &str) {
        let request = RemoveContainerRequest { container_id: id.to_owned() };
        self.agent.clone().remove_container(request).await.unwrap();
    }

    pub(crate) async fn exec(&self, id: &str, exec_id: &str, process: Process) -> Result<u32, Status> {
        let (container_id, exec_id) = (id.to_owned(), exec_id.to_owned());
        let request = ExecProcessRequest { container_id, exec_id, process: Some(process) };
        self.agent.clone().exec_process(request).await.map(|answer| answer.into_inner().pid)
    }

    /// The last event's number.
    pub(crate) async fn mark(&self) -> u64 {
        let mut last = 0;
        let mut events = self.agent.clone().events(EventsRequest { after: 0 }).await.unwrap().into_inner();
        while let Ok(Ok(Some(event))) = tokio::time::timeout(Duration::from_millis(100), events.message()).await {
            last = event.sequence;
        }
        last
    }

    /// Events after `mark` until `last` says so.
    pub(crate) async fn events(&self, mark: u64, last: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut seen = Vec::new();
        let mut events = self.agent.clone().events(EventsRequest { after: mark }).await.unwrap().into_inner();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(60), events.message())
                .await
                .expect("an event within a minute")
                .unwrap()
                .unwrap();
            let done = last(&event);
            seen.push(event);
            if done {
                return seen;
            }
        }
    }

    /// Waits for the end of a process.
    pub(crate) async fn wait(&self, id: &str, exec_id: &str, mark: u64) -> ProcessExited {
        let exit = |event: &Event| match &event.kind {
            Some(event::Kind::Exited(exited)) => {
                (exited.container_id == id && exited.exec_id == exec_id).then(|| exited.clone())
            }
            _ => None,
        };
        self.events(mark, |event| exit(event).is_some()).await.last().and_then(exit).unwrap()
    }

    /// Creates, starts, waits and removes.
    pub(crate) async fn run(&self, request: CreateContainerRequest) -> Outcome {
        let id = request.container_id.clone();
        let tokens = request.process.as_ref().and_then(|process| process.stdio).unwrap_or_default();
        let mark = self.mark().await;
        self.create(request).await.unwrap();
        self.start(&id).await.unwrap();
        let (stdout, stderr, exited) =
            tokio::join!(read_all(tokens.stdout), read_all(tokens.stderr), self.wait(&id, "", mark));
        self.remove(&id).await;
        Outcome { code: exited.exit_code, stdout, stderr, oom_killed: exited.oom_killed }
    }

    /// Runs a process in a container and waits for it.
    pub(crate) async fn run_exec(&self, id: &str, exec_id: &str, process: Process) -> Outcome {
        let tokens = process.stdio.unwrap_or_default();
        let mark = self.mark().await;
        self.exec(id, exec_id, process).await.unwrap();
        let (stdout, stderr, exited) =
            tokio::join!(read_all(tokens.stdout), read_all(tokens.stderr), self.wait(id, exec_id, mark));
        Outcome { code: exited.exit_code, stdout, stderr, oom_killed: exited.oom_killed }
    }
}

/// Asserts that a call was refused with this code and text.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(text), "{:?} does not contain {text:?}", status.message());
}
