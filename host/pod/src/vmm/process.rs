//! Starting the VMM process, and seeing it end.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use husk_vmm_control::{Boot, Call, Device, ErrorKind, HotplugState, Reply, SlotIndex, Status, Timeline};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::control::{Control, Told};
use super::{VmEndReason, VmEnded, VmmError};
use crate::deadlines::Deadlines;
use crate::text;

/// Becomes `Some` when the VM is over.
pub(crate) type EndedWatch = watch::Receiver<Option<Arc<VmEnded>>>;

/// The end of the VM, once it has come.
pub(crate) async fn ended_now(watch: &mut EndedWatch) -> Arc<VmEnded> {
    match watch.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
        Ok(Some(ended)) => ended,
        // The supervisor says so before it goes, unless the whole runtime is being shut down.
        _ => std::future::pending().await,
    }
}

/// What the process is started with.
#[derive(Debug)]
pub(crate) struct SpawnWanted<'a> {
    /// `namespace/id`, for messages.
    pub(crate) pod: String,
    pub(crate) program: &'a Path,
    /// `cgroup.procs` of the cgroup that it is to be born in.
    pub(crate) cgroup: Option<File>,
    /// Its standard output and error.
    pub(crate) log: File,
    pub(crate) log_path: PathBuf,
    pub(crate) console_path: PathBuf,
}

/// A running VMM. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Vmm {
    pid: u32,
    control: Control,
    ended: EndedWatch,
    kill: Arc<Notify>,
    supervisor: JoinHandle<()>,
    console: PathBuf,
    deadlines: Deadlines,
}

impl Drop for Vmm {
    fn drop(&mut self) {
        // The process is killed with its handle.
        self.supervisor.abort();
    }
}

impl Vmm {
    pub(crate) fn spawn(wanted: SpawnWanted<'_>, deadlines: Deadlines) -> Result<Self, VmmError> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|error| VmmError::Socket(error.into()))?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|error| VmmError::Socket(error.into()))?;
        let child = start(wanted.program, wanted.cgroup, wanted.log, &theirs)
            .map_err(|source| VmmError::Spawn { program: wanted.program.to_owned(), source })?;
        drop(theirs);
        let pid = child.id().unwrap_or_default();
        let control = Control::new(ours).map_err(VmmError::Socket)?;
        let kill = Arc::new(Notify::new());
        let console = wanted.console_path.clone();
        let (tell, ended) = watch::channel(None);
        let told = control.told();
        let supervision = Supervision {
            child,
            told,
            kill: Arc::clone(&kill),
            pod: wanted.pod,
            console: wanted.console_path,
            log: wanted.log_path,
            patience: deadlines.kill,
        };
        let supervisor = tokio::spawn(async move {
            let end = supervision.watch_until_the_end().await;
            tell.send_replace(Some(Arc::new(end)));
        });
        Ok(Self { pid, control, ended, kill, supervisor, console, deadlines })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn ended(&self) -> EndedWatch {
        self.ended.clone()
    }

    /// SIGKILL; the end is seen by [`Self::ended`].
    pub(crate) fn kill(&self) {
        self.kill.notify_one();
    }

    /// `fds` as [`Call::Boot`] wants them.
    pub(crate) async fn boot(&self, boot: Boot, fds: &[BorrowedFd<'_>]) -> Result<(), VmmError> {
        match self.call("boot", Call::Boot(boot), fds, self.deadlines.boot).await? {
            Reply::Done => Ok(()),
            _ => Err(VmmError::WrongReply { call: "boot" }),
        }
    }

    /// Waits for the agent's ready signal.
    pub(crate) async fn ready(&self) -> Result<Timeline, VmmError> {
        let mut told = self.control.told();
        let mut ended = self.ended();
        let ready = told.wait_for(|told| told.ready.is_some());
        let deadline = self.deadlines.boot;
        tokio::select! {
            result = tokio::time::timeout(deadline, ready) => match result.map(|ready| ready.ok().and_then(|told| told.ready)) {
                Ok(Some(timeline)) => return Ok(timeline),
                Ok(None) => {}
                Err(_) => return Err(VmmError::NotReady { after: deadline, console: text::tail(&self.console) }),
            },
            end = ended_now(&mut ended) => return Err(end.into()),
        }
        Err(ended_now(&mut ended).await.into())
    }

    pub(crate) async fn plug(&self, device: Device, files: &[BorrowedFd<'_>]) -> Result<SlotIndex, VmmError> {
        match self.call("plug", Call::Plug(device), files, self.deadlines.vmm).await? {
            Reply::Plugged { slot } => Ok(slot),
            _ => Err(VmmError::WrongReply { call: "plug" }),
        }
    }

    /// An empty slot is what was wanted.
    pub(crate) async fn unplug(&self, slot: SlotIndex, force: bool) -> Result<(), VmmError> {
        match self.call("unplug", Call::Unplug { slot, force }, &[], self.deadlines.vmm).await {
            Err(VmmError::Refused { source, .. }) if source.kind == ErrorKind::EmptySlot => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Shows `tree`, opened with `O_PATH`, in the file system of a slot.
    pub(crate) async fn export(
        &self,
        slot: SlotIndex,
        name: &str,
        read_only: bool,
        tree: BorrowedFd<'_>,
    ) -> Result<(), VmmError> {
        let call = Call::Export { slot, name: name.into(), read_only };
        match self.call("export", call, &[tree], self.deadlines.vmm).await? {
            Reply::Done => Ok(()),
            _ => Err(VmmError::WrongReply { call: "export" }),
        }
    }

    pub(crate) async fn unexport(&self, slot: SlotIndex, name: &str) -> Result<(), VmmError> {
        let call = Call::Unexport { slot, name: name.into() };
        self.call("unexport", call, &[], self.deadlines.vmm).await.map(|_| ())
    }

    /// Says how much hot-pluggable memory the guest shall have.
    pub(crate) async fn request_memory(&self, mib: u64) -> Result<(), VmmError> {
        self.call("request memory", Call::RequestMemory { mib }, &[], self.deadlines.vmm).await.map(|_| ())
    }

    /// How much of it there is, and the guest has, by the VMM's count.
    pub(crate) async fn hotplug(&self) -> Result<HotplugState, VmmError> {
        let none = HotplugState { size_mib: 0, requested_mib: 0, plugged_mib: 0 };
        Ok(self.status().await?.hotplug.unwrap_or(none))
    }

    pub(crate) async fn status(&self) -> Result<Status, VmmError> {
        match self.call("status", Call::Status, &[], self.deadlines.vmm).await? {
            Reply::Status(status) => Ok(status),
            _ => Err(VmmError::WrongReply { call: "status" }),
        }
    }

    pub(crate) async fn shutdown(&self) -> Result<(), VmmError> {
        self.call("shutdown", Call::Shutdown, &[], self.deadlines.vmm).await.map(|_| ())
    }

    async fn call(
        &self,
        name: &'static str,
        call: Call,
        fds: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<Reply, VmmError> {
        match self.control.call(name, call, fds, deadline).await? {
            Some(reply) => Ok(reply),
            // The supervisor kills a VMM that closed its socket and stays, so the end does come.
            None => Err(ended_now(&mut self.ended()).await.into()),
        }
    }
}

fn start(program: &Path, cgroup: Option<File>, log: File, control: &OwnedFd) -> std::io::Result<Child> {
    let control = control.as_raw_fd();
    let mut command = Command::new(program);
    command
        .arg("--control-fd")
        .arg(control.to_string())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    // SAFETY: between fork and exec the closure makes only async-signal-safe system calls (write, fcntl,
    // prlimit) on descriptors that are open in the child as well, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if let Some(procs) = &cgroup {
                // "0" is the writing process itself: the VMM is in its cgroup before its first instruction.
                rustix::io::write(procs, b"0")?;
            }
            let control = BorrowedFd::borrow_raw(control);
            rustix::io::fcntl_setfd(control, rustix::io::FdFlags::empty())?;
            // Each object of the host that the guest knows is a descriptor of the VMM's.
            let files = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
            Ok(())
        });
    }
    command.spawn()
}

/// Owns the process until its end.
struct Supervision {
    child: Child,
    told: watch::Receiver<Told>,
    kill: Arc<Notify>,
    pod: String,
    console: PathBuf,
    log: PathBuf,
    patience: Duration,
}

impl Supervision {
    async fn watch_until_the_end(mut self) -> VmEnded {
        let status = self.wait().await;
        // What it said before it went may still be in the socket; its end of the socket is closed now.
        let _ = tokio::time::timeout(self.patience, self.told.wait_for(|told| told.closed.is_some())).await;
        let told = self.told.borrow().clone();
        let reason = match (told.exit, told.closed) {
            (Some(reason), _) => VmEndReason::Vm(reason),
            (None, Some(cause)) if !cause.is_empty() => VmEndReason::Control(cause),
            _ => VmEndReason::Process(match status {
                Ok(status) => status.to_string(),
                Err(error) => format!("unknown status ({error})"),
            }),
        };
        tracing::info!(pod = self.pod, ?reason, "VM ended");
        VmEnded::new(self.pod, reason, &self.console, &self.log)
    }

    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let mut told = self.told.clone();
        let over = async {
            // The VM ended or the socket is closed: the process has to follow.
            let _ = told.wait_for(|told| told.exit.is_some() || told.closed.is_some()).await;
            tokio::time::sleep(self.patience).await;
        };
        tokio::select! {
            status = self.child.wait() => return status,
            () = self.kill.notified() => {}
            () = over => tracing::warn!(pod = self.pod, "the VMM outlives its VM; killing it"),
        }
        self.child.start_kill()?;
        self.child.wait().await
    }
}
