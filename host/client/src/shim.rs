//! One pod's shim: every call of its two services.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use containerd_shim_protos::api;
use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use containerd_shim_protos::shim_async::TaskClient;
use oci_spec::runtime::{LinuxResources, Process};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde::Serialize;
use tokio::net::UnixStream;
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{self, Context};

use crate::api::{
    AttachRequest, ForwardRequest, InspectRequest, PodClient, ProcessesRequest, ReopenLogRequest, ResizeRequest,
    StatsRequest, UsageRequest,
};
use crate::dirs::Dirs;
use crate::error::{ConnectError, TaskError};
use crate::time::from_timestamp;
use crate::types::{
    CreateTask, Exit, IoStats, NetworkStats, PodInspect, PodStats, ProcessInfo, Stats, Status, Stdio, TaskState,
};
use crate::usage::Usage;
use crate::{METRICS_TYPE_URL, PROCESS_TYPE_URL, RESOURCES_TYPE_URL};

/// A connection to the shim of one pod. Clones share it; calls may run at the same time.
///
/// `exec` is the id of a further process of the container, `None` its first one. The sandbox is the task that has the
/// pod's id.
#[derive(Clone)]
pub struct Shim {
    pod: String,
    task: TaskClient,
    extra: PodClient,
}

impl fmt::Debug for Shim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shim").field("pod", &self.pod).finish_non_exhaustive()
    }
}

impl Shim {
    /// Connects to the running shim of a pod; [`ConnectError::NotRunning`] when there is none.
    pub async fn connect(dirs: &Dirs, namespace: &str, pod: &str) -> Result<Self, ConnectError> {
        Self::connect_to(pod, dirs.task_socket(namespace, pod)?).await
    }

    /// Connects to the shim that listens on `socket`.
    pub(crate) async fn connect_to(pod: &str, socket: PathBuf) -> Result<Self, ConnectError> {
        let stream = match UnixStream::connect(&socket).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Err(ConnectError::NotRunning { pod: pod.to_owned(), socket });
            }
            Err(source) => return Err(ConnectError::Io { pod: pod.to_owned(), socket, source }),
        };
        let client = Client::new(Socket::from(stream));
        Ok(Self { pod: pod.to_owned(), task: TaskClient::new(client.clone()), extra: PodClient::new(client) })
    }

    /// Id of the pod, which is also its sandbox task's.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Makes a task and answers its pid. The sandbox's boots the VM; a container's init waits for [`Shim::start`].
    pub async fn create(&self, task: CreateTask) -> Result<u32, TaskError> {
        let mut rootfs = Vec::with_capacity(task.rootfs.len());
        for image in &task.rootfs {
            let mut options = vec!["ro".into()];
            for device in &image.devices {
                options.push(format!("device={}", utf8("rootfs", device)?));
            }
            rootfs.push(api::Mount {
                type_: "erofs".into(),
                source: utf8("rootfs", &image.path)?,
                options,
                ..Default::default()
            });
        }
        let Stdio { stdin, stdout, stderr, terminal } = task.stdio;
        let request = api::CreateTaskRequest {
            id: task.id,
            bundle: utf8("bundle", &task.bundle)?,
            rootfs,
            terminal,
            stdin: stdin.unwrap_or_default(),
            stdout: stdout.unwrap_or_default(),
            stderr: stderr.unwrap_or_default(),
            ..Default::default()
        };
        Ok(self.task.create(no_deadline(), &request).await?.pid)
    }

    /// Lets a created task run and answers its pid.
    pub async fn start(&self, id: &str) -> Result<u32, TaskError> {
        self.start_process(id, "").await
    }

    /// Registers a further process; [`Shim::start_exec`] runs it.
    pub async fn exec(&self, id: &str, exec: &str, process: &Process, stdio: Stdio) -> Result<(), TaskError> {
        let request = api::ExecProcessRequest {
            id: id.into(),
            exec_id: exec.into(),
            terminal: stdio.terminal,
            stdin: stdio.stdin.unwrap_or_default(),
            stdout: stdio.stdout.unwrap_or_default(),
            stderr: stdio.stderr.unwrap_or_default(),
            spec: Some(json_any(PROCESS_TYPE_URL, process)?).into(),
            ..Default::default()
        };
        self.task.exec(no_deadline(), &request).await?;
        Ok(())
    }

    /// Runs a registered exec and answers its pid.
    pub async fn start_exec(&self, id: &str, exec: &str) -> Result<u32, TaskError> {
        self.start_process(id, exec).await
    }

    async fn start_process(&self, id: &str, exec: &str) -> Result<u32, TaskError> {
        let request = api::StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        Ok(self.task.start(no_deadline(), &request).await?.pid)
    }

    /// Waits for a process to end; answers at once when it has. Several may wait.
    pub async fn wait(&self, id: &str, exec: Option<&str>) -> Result<Exit, TaskError> {
        let request = api::WaitRequest { id: id.into(), exec_id: or_empty(exec), ..Default::default() };
        let answer = self.task.wait(no_deadline(), &request).await?;
        Ok(exit(answer.exit_status, answer.exited_at.as_ref()))
    }

    /// Sends a signal to a process, or with `all` to every process of its container. To the sandbox, SIGTERM and
    /// SIGKILL stop the pod.
    pub async fn kill(&self, id: &str, exec: Option<&str>, signal: u32, all: bool) -> Result<(), TaskError> {
        let request = api::KillRequest { id: id.into(), exec_id: or_empty(exec), signal, all, ..Default::default() };
        self.task.kill(no_deadline(), &request).await?;
        Ok(())
    }

    /// Stops every process of a running container where it stands.
    pub async fn pause(&self, id: &str) -> Result<(), TaskError> {
        self.task.pause(no_deadline(), &api::PauseRequest { id: id.into(), ..Default::default() }).await?;
        Ok(())
    }

    /// Lets the processes of a paused container go on.
    pub async fn resume(&self, id: &str) -> Result<(), TaskError> {
        self.task.resume(no_deadline(), &api::ResumeRequest { id: id.into(), ..Default::default() }).await?;
        Ok(())
    }

    /// Sets the size of a process's terminal.
    pub async fn resize(&self, id: &str, exec: Option<&str>, rows: u32, columns: u32) -> Result<(), TaskError> {
        let request = api::ResizePtyRequest {
            id: id.into(),
            exec_id: or_empty(exec),
            width: columns,
            height: rows,
            ..Default::default()
        };
        self.task.resize_pty(no_deadline(), &request).await?;
        Ok(())
    }

    /// Ends a process's standard input after what has been written so far.
    pub async fn close_stdin(&self, id: &str, exec: Option<&str>) -> Result<(), TaskError> {
        let request = api::CloseIORequest { id: id.into(), exec_id: or_empty(exec), stdin: true, ..Default::default() };
        self.task.close_io(no_deadline(), &request).await?;
        Ok(())
    }

    /// Removes a stopped task or exec and answers how it ended.
    pub async fn delete(&self, id: &str, exec: Option<&str>) -> Result<Exit, TaskError> {
        let request = api::DeleteRequest { id: id.into(), exec_id: or_empty(exec), ..Default::default() };
        let answer = self.task.delete(no_deadline(), &request).await?;
        Ok(exit(answer.exit_status, answer.exited_at.as_ref()))
    }

    pub async fn state(&self, id: &str, exec: Option<&str>) -> Result<TaskState, TaskError> {
        let request = api::StateRequest { id: id.into(), exec_id: or_empty(exec), ..Default::default() };
        let answer = self.task.state(no_deadline(), &request).await?;
        let status = match answer.status.enum_value() {
            Ok(api::Status::CREATED) => Status::Created,
            Ok(api::Status::RUNNING) => Status::Running,
            Ok(api::Status::PAUSED) => Status::Paused,
            Ok(api::Status::STOPPED) => Status::Stopped,
            _ => Status::Unknown,
        };
        let exit = (status == Status::Stopped).then(|| exit(answer.exit_status, answer.exited_at.as_ref()));
        Ok(TaskState { status, pid: answer.pid, exit, terminal: answer.terminal })
    }

    /// Process ids of a container, as the guest's initial pid namespace numbers them.
    pub async fn pids(&self, id: &str) -> Result<Vec<u32>, TaskError> {
        let request = api::PidsRequest { id: id.into(), ..Default::default() };
        let answer = self.task.pids(no_deadline(), &request).await?;
        Ok(answer.processes.into_iter().map(|process| process.pid).collect())
    }

    /// What a container's processes are doing.
    pub async fn processes(&self, id: &str) -> Result<Vec<ProcessInfo>, TaskError> {
        let request = ProcessesRequest { container_id: id.into(), ..Default::default() };
        let answer = self.extra.processes(no_deadline(), &request).await?;
        Ok(answer.processes.into_iter().map(Into::into).collect())
    }

    /// Resource use of a container, or of the whole pod under the sandbox's id. Still answered for a container that
    /// has stopped and is not yet deleted.
    pub async fn stats(&self, id: &str) -> Result<Stats, TaskError> {
        let request = api::StatsRequest { id: id.into(), ..Default::default() };
        let answer = self.task.stats(no_deadline(), &request).await?;
        let any = answer.stats.into_option().unwrap_or_default();
        if any.type_url.rsplit('/').next() != Some(METRICS_TYPE_URL) {
            return Err(TaskError::Internal(format!("statistics of {id}: unexpected type {:?}", any.type_url)));
        }
        let metrics = Metrics::parse_from_bytes(&any.value)
            .map_err(|error| TaskError::Internal(format!("statistics of {id}: {error}")))?;
        Ok(stats(metrics))
    }

    /// The same with all that the guest counts.
    pub async fn usage(&self, id: &str) -> Result<Usage, TaskError> {
        let request = UsageRequest { id: id.into(), ..Default::default() };
        Ok(self.extra.usage(no_deadline(), &request).await?.into())
    }

    /// Changes the limits of a container, or of the pod under the sandbox's id.
    pub async fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), TaskError> {
        let request = api::UpdateTaskRequest {
            id: id.into(),
            resources: Some(json_any(RESOURCES_TYPE_URL, resources)?).into(),
            ..Default::default()
        };
        self.task.update(no_deadline(), &request).await?;
        Ok(())
    }

    /// The VM, its boot timeline, and what became of every container.
    pub async fn inspect(&self) -> Result<PodInspect, TaskError> {
        Ok(self.extra.inspect(no_deadline(), &InspectRequest::default()).await?.into())
    }

    /// What the pod takes of the host.
    pub async fn pod_stats(&self) -> Result<PodStats, TaskError> {
        Ok(self.extra.stats(no_deadline(), &StatsRequest::default()).await?.into())
    }

    /// Makes the pod larger or smaller: bytes of all its containers together, CPU time in microseconds of each period
    /// (-1 = no limit). What is `None` stays. Answers the VM's memory in MiB and its CPUs.
    pub async fn resize_pod(&self, memory: Option<u64>, cpu: Option<(i64, u64)>) -> Result<(u64, u32), TaskError> {
        let (cpu_quota_us, cpu_period_us) = cpu.unwrap_or_default();
        let memory_bytes = memory.unwrap_or_default();
        let request = ResizeRequest { memory_bytes, cpu_quota_us, cpu_period_us, ..Default::default() };
        let answer = self.extra.resize(no_deadline(), &request).await?;
        Ok((answer.memory_mib, answer.vcpus))
    }

    /// Opens a container's `cri-log` file anew, after it has been renamed.
    pub async fn reopen_log(&self, id: &str) -> Result<(), TaskError> {
        let request = ReopenLogRequest { container_id: id.into(), ..Default::default() };
        self.extra.reopen_log(no_deadline(), &request).await?;
        Ok(())
    }

    /// Joins the streams of a running container's first process: what it writes from now on goes to the FIFOs of `stdio`
    /// as well, and what comes from its stdin FIFO is the process's input. The FIFOs' ends are as with an exec: take
    /// them ([`crate::Fifos::into_streams`]) when this has answered. Output ends when the container's does.
    ///
    /// With `close_stdin` the end of this client's input is the end of the process's; without it the process's stays
    /// open. A client that does not read for 30 seconds while there is output is dropped: its streams end.
    ///
    /// [`TaskError::FailedPrecondition`] when the container does not run, when a stream is asked for that it does not
    /// have (input is there with [`crate::ATTACH`] only), and when 64 clients are attached.
    pub async fn attach(&self, container: &str, stdio: &Stdio, close_stdin: bool) -> Result<(), TaskError> {
        let request = AttachRequest {
            container_id: container.into(),
            stdin: stdio.stdin.clone().unwrap_or_default(),
            stdout: stdio.stdout.clone().unwrap_or_default(),
            stderr: stdio.stderr.clone().unwrap_or_default(),
            close_stdin,
            ..Default::default()
        };
        self.extra.attach(no_deadline(), &request).await?;
        Ok(())
    }

    /// Connects to a TCP port in the pod, on its loopback addresses, and carries what is written to the stdin FIFO of
    /// `stdio` there and what the port sends to its stdout FIFO, with an end of file for each direction. Dropping
    /// the reader of stdout ends the connection.
    ///
    /// [`TaskError::FailedPrecondition`] when nobody listens on `port` (1 to 65535), before any byte, and when 256
    /// connections of the pod are open.
    pub async fn forward(&self, port: u16, stdio: &Stdio) -> Result<(), TaskError> {
        let request = ForwardRequest {
            port: port.into(),
            stdin: stdio.stdin.clone().unwrap_or_default(),
            stdout: stdio.stdout.clone().unwrap_or_default(),
            ..Default::default()
        };
        self.extra.forward(no_deadline(), &request).await?;
        Ok(())
    }

    /// Ends the shim once its sandbox has been deleted; before that it changes nothing.
    pub async fn shutdown(&self) -> Result<(), TaskError> {
        let request = api::ShutdownRequest { id: self.pod.clone(), ..Default::default() };
        match self.task.shutdown(no_deadline(), &request).await.map_err(TaskError::from) {
            // It may have ended before its answer was sent.
            Ok(_) | Err(TaskError::Unavailable(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The shim bounds its own steps; a client that wants less waiting drops the future.
fn no_deadline() -> Context {
    context::with_timeout(0)
}

fn or_empty(exec: Option<&str>) -> String {
    exec.unwrap_or_default().to_owned()
}

fn exit(code: u32, at: Option<&protobuf::well_known_types::timestamp::Timestamp>) -> Exit {
    Exit { code, at: at.and_then(from_timestamp).unwrap_or(UNIX_EPOCH) }
}

fn utf8(field: &str, path: &Path) -> Result<String, TaskError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        TaskError::InvalidArgument(format!("{field} {}: the Task API carries only paths in UTF-8", path.display()))
    })
}

fn json_any<T: Serialize>(type_url: &str, value: &T) -> Result<Any, TaskError> {
    let value =
        serde_json::to_vec(value).map_err(|error| TaskError::InvalidArgument(format!("{type_url}: {error}")))?;
    Ok(Any { type_url: type_url.into(), value, ..Default::default() })
}

fn stats(metrics: Metrics) -> Stats {
    let cpu = metrics.cpu.unwrap_or_default();
    let memory = metrics.memory.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    Stats {
        cpu_usage_us: cpu.usage_usec,
        cpu_user_us: cpu.user_usec,
        cpu_system_us: cpu.system_usec,
        memory_usage: memory.usage,
        memory_limit: memory.usage_limit,
        memory_anon: memory.anon,
        memory_file: memory.file,
        memory_inactive_file: memory.inactive_file,
        oom_kill: metrics.memory_events.unwrap_or_default().oom_kill,
        pids_current: pids.current,
        pids_limit: pids.limit,
        io: metrics
            .io
            .unwrap_or_default()
            .usage
            .into_iter()
            .map(|entry| IoStats {
                major: entry.major,
                minor: entry.minor,
                read_bytes: entry.rbytes,
                write_bytes: entry.wbytes,
                read_operations: entry.rios,
                write_operations: entry.wios,
            })
            .collect(),
        network: metrics
            .network
            .into_iter()
            .map(|interface| NetworkStats {
                name: interface.name,
                received_bytes: interface.rx_bytes,
                received_packets: interface.rx_packets,
                sent_bytes: interface.tx_bytes,
                sent_packets: interface.tx_packets,
            })
            .collect(),
    }
}
