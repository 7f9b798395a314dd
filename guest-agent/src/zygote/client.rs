//! PID 1's side: one task that puts requests to the zygote one after the other.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use prost::Message as _;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::channel;
use super::message::{Job, LaunchSpec, Role, SpawnHeader, SpawnReply};
use crate::error::{Context, Error, Result};
use crate::reaper::Reaper;

/// A process to be made.
#[derive(Debug)]
pub struct Request {
    job: Job,
    new_pid_namespace: bool,
    fds: Vec<(Role, OwnedFd)>,
}

impl Request {
    /// A process of this kind.
    #[must_use]
    pub fn new(job: Job) -> Self {
        Self { job, new_pid_namespace: false, fds: Vec::new() }
    }

    /// Makes it PID 1 of a new pid namespace.
    pub fn in_new_pid_namespace(&mut self) {
        self.new_pid_namespace = true;
    }

    /// Adds a descriptor.
    pub fn give(&mut self, role: Role, fd: OwnedFd) {
        self.fds.push((role, fd));
    }

    /// Adds the specification, in a sealed memfd.
    pub fn give_spec(&mut self, spec: &LaunchSpec) -> Result<()> {
        use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, memfd_create, seek};
        use std::io::Write as _;
        let fd = memfd_create("launch-spec", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .on("memfd_create", "launch-spec")?;
        let mut file = std::fs::File::from(fd);
        file.write_all(&spec.encode_to_vec()).on("write", "launch-spec")?;
        seek(&file, SeekFrom::Start(0)).on("lseek", "launch-spec")?;
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK).on("seal", "launch-spec")?;
        self.give(Role::Spec, file.into());
        Ok(())
    }
}

/// A process that the zygote has made.
#[derive(Debug)]
pub struct Spawned {
    /// In the agent's pid namespace.
    pub pid: u32,
    /// Refers to it for ever.
    pub pidfd: OwnedFd,
    /// Its exit code, once.
    pub exit: oneshot::Receiver<u8>,
}

/// A handle to the task.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<(Request, oneshot::Sender<Result<Spawned>>)>,
}

impl Client {
    /// Starts the task. Must be called within the runtime.
    pub fn start(channel: OwnedFd, reaper: Arc<Reaper>) -> Result<Self> {
        let channel = crate::sys::watch(channel, Interest::READABLE).on("epoll_ctl", "zygote channel")?;
        let (requests, mut queue) = mpsc::channel::<(Request, oneshot::Sender<Result<Spawned>>)>(16);
        tokio::spawn(async move {
            while let Some((request, answer)) = queue.recv().await {
                // Nobody may be waiting any more; the process is then ended by its descriptors being dropped.
                let _ = answer.send(spawn(&channel, &reaper, request).await);
            }
        });
        Ok(Self { requests })
    }

    /// Has the zygote make a process.
    pub async fn spawn(&self, request: Request) -> Result<Spawned> {
        let gone = || Error::Internal("the zygote has gone".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests.send((request, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn spawn(channel: &AsyncFd<OwnedFd>, reaper: &Reaper, request: Request) -> Result<Spawned> {
    let header = SpawnHeader {
        job: request.job.into(),
        new_pid_namespace: request.new_pid_namespace,
        roles: request.fds.iter().map(|(role, _)| i32::from(*role)).collect(),
    };
    let fds: Vec<_> = request.fds.iter().map(|(_, fd)| fd.as_fd()).collect();
    // From here to its registration a new child may end without anybody knowing whose it is.
    let unregistered = reaper.expect_unknown();
    channel::send(channel, &header.encode_to_vec(), &fds).on("sendmsg", "zygote channel")?;
    let (bytes, mut fds) = loop {
        let mut ready = channel.readable().await.on("poll", "zygote channel")?;
        match channel::receive(channel) {
            Err(Errno::AGAIN) => ready.clear_ready(),
            Ok(None) => return Err(Error::Internal("the zygote has gone".to_owned())),
            other => break other.on("recvmsg", "zygote channel")?.ok_or_else(|| Error::Internal("no reply".into()))?,
        }
    };
    let reply = SpawnReply::decode(bytes.as_slice())
        .map_err(|error| Error::Internal(format!("decode the zygote's reply: {error}")))?;
    if reply.pid <= 0 {
        return Err(Error::Internal(format!("make a process: {}", reply.error)));
    }
    let exit = unregistered.register(reply.pid);
    let pidfd = fds.pop().ok_or_else(|| Error::Internal("the zygote sent no pidfd".to_owned()))?;
    Ok(Spawned { pid: reply.pid.unsigned_abs(), pidfd, exit })
}
