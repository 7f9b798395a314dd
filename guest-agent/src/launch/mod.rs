//! What a freshly cloned process does until it is a container's program.
//!
//! All of this runs in a process of its own: it may block, and it may fail without harm; its end of the status socket
//! says how far it came. `root` builds the mount namespace, `devices` fills /dev, `terminal` makes the pty, `identity`
//! drops privileges, `users` enters a user namespace, `clocks` a time namespace, `seccomp` loads the filter of system calls, `program` finds and executes the program, `reaper` is PID 1 of a shared pid namespace. What to
//! build was checked and opened by `container`.

mod clocks;
mod devices;
mod identity;
mod program;
mod reaper;
mod root;
pub mod seccomp;
pub mod status;
mod terminal;
mod users;

use std::os::fd::{AsFd, OwnedFd};

use prost::Message as _;
use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

use crate::error::{Context, Error, Result};
use crate::sys::exit_now;
use crate::zygote::message::{Job, LaunchSpec, Role};
use program::Program;
use status::Status;
pub use users::Crossing;

/// Longest [`LaunchSpec`]: what gRPC lets in.
const MAX_SPEC: u64 = 8 << 20;

/// The descriptors of a spawn request, by role.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// See [`Role::Spec`], and so on for the others.
    pub spec: Option<OwnedFd>,
    /// The cgroup to be born in.
    pub cgroup: Option<OwnedFd>,
    /// The status socket.
    pub status: Option<OwnedFd>,
    /// The pipe that holds an init back.
    pub start: Option<OwnedFd>,
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
    /// The root mount.
    pub root_fs: Option<OwnedFd>,
    /// Whose mount, cgroup and time namespaces to join.
    pub target: Option<OwnedFd>,
    /// Whose pid namespace to join.
    pub pid_namespace: Option<OwnedFd>,
    /// Detached mounts, in order.
    pub mounts: Vec<OwnedFd>,
    /// The user namespace to enter.
    pub user_namespace: Option<OwnedFd>,
    /// Given by the zygote to a process that has another one to make there.
    pub crossing: Option<Crossing>,
}

impl Descriptors {
    /// Files `fd` under its role. One of no role is closed.
    pub fn put(&mut self, role: Role, fd: OwnedFd) {
        let place = match role {
            Role::Unspecified => return,
            Role::Mount => return self.mounts.push(fd),
            Role::Spec => &mut self.spec,
            Role::Cgroup => &mut self.cgroup,
            Role::Status => &mut self.status,
            Role::Start => &mut self.start,
            Role::Stdin => &mut self.stdin,
            Role::Stdout => &mut self.stdout,
            Role::Stderr => &mut self.stderr,
            Role::RootFs => &mut self.root_fs,
            Role::Target => &mut self.target,
            Role::PidNamespace => &mut self.pid_namespace,
            Role::UserNamespace => &mut self.user_namespace,
        };
        *place = Some(fd);
    }
}

/// Becomes what `job` says. Never returns to the zygote's loop.
pub fn run(job: Job, mut descriptors: Descriptors) -> ! {
    // Until execve this process still maps the agent's memory: nobody in the container may look into it.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    crate::sys::reset_signals();
    // The parent's handle is in the zygote; ours would only keep the directory busy.
    descriptors.cgroup = None;
    let Some(status) = descriptors.status.take().map(Status::new) else { exit_now(1) };
    let result = match job {
        Job::Init => init(descriptors, &status),
        Job::Exec => exec(descriptors, &status),
        Job::Reaper => users::cross(&mut descriptors).and_then(|()| reaper::run(&status)),
        Job::UserNamespace => users::hold(descriptors, &status),
        Job::Unspecified => Err(Error::Internal("a spawn request without a job".to_owned())),
    };
    match result {
        Ok(never) => match never {},
        Err(error) => {
            let code = program::exit_code(&error);
            status.failed(&error);
            exit_now(code)
        }
    }
}

/// Success of something that ends in execve: it never comes back.
#[derive(Debug)]
pub enum Never {}

/// A container's first process.
fn init(mut descriptors: Descriptors, status: &Status) -> Result<Never> {
    let spec = read_spec(&mut descriptors)?;
    let process = spec.process.unwrap_or_default();
    let root_spec = spec.root.ok_or_else(|| Error::Internal("an init without a root".to_owned()))?;
    rustix::process::umask(Mode::empty());
    identity::set_oom_score_adj(&process)?;
    if let Some(clocks) = &spec.clocks {
        clocks::enter(clocks)?;
    }
    let null = open_null()?;
    let nodes = devices::all(&root_spec.devices);
    let mut early = root::Early::default();
    if descriptors.crossing.is_some() {
        identity::raise_limits(&process)?;
        early.make(&root_spec, &root::OF_THE_POD)?;
        early.devices = devices::make_early(&nodes)?;
        users::cross(&mut descriptors)?;
        early.make(&root_spec, &root::OF_THE_PROCESS)?;
    }
    // Only now: CLONE_NEWCGROUP together with CLONE_INTO_CGROUP would make the zygote's cgroup the root.
    unshare(UnshareFlags::NEWCGROUP, "cgroup namespace")?;
    let root = root::enter(&mut descriptors, &root_spec)?;
    root::mount_all(&root, &root_spec, std::mem::take(&mut descriptors.mounts), &mut early)?;
    devices::create(&root, &nodes, early.devices)?;
    rustix::process::setsid().on("setsid", "init")?;
    let stdio = terminal::connect(&root, &process, &mut descriptors, null, status, true)?;
    root::protect(&root, &root_spec)?;
    program::prepare_cwd(&root, &process.cwd)?;
    root::finish(&root, &root_spec)?;
    program::enter_cwd(&process.cwd)?;
    let environment = program::environment(&root, &process)?;
    stdio.install()?;
    let start = descriptors.start.take().ok_or_else(|| Error::Internal("an init without a start pipe".to_owned()))?;
    drop((root, descriptors));
    let program = Program::prepare(&process.args, environment)?;
    let filter = identity::assume(&process, spec.seccomp)?;
    status.ready()?;
    wait_for_start(&start)?;
    filter.load_last()?;
    program.execute()
}

/// A further process of a running container.
fn exec(mut descriptors: Descriptors, status: &Status) -> Result<Never> {
    let spec = read_spec(&mut descriptors)?;
    let process = spec.process.unwrap_or_default();
    rustix::process::umask(Mode::empty());
    identity::set_oom_score_adj(&process)?;
    let null = open_null()?;
    let target = descriptors.target.take().ok_or_else(|| Error::Internal("an exec without a target".to_owned()))?;
    let kinds = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::CONTROL_GROUP | ThreadNameSpaceType::TIME;
    move_into_thread_name_spaces(target.as_fd(), kinds)
        .map_err(|errno| Error::precondition(format!("join the container's namespaces: {errno}; has it ended?")))?;
    drop(target);
    if let Some(namespace) = descriptors.user_namespace.take() {
        identity::raise_limits(&process)?;
        users::enter(&namespace)?;
    }
    let root = root::open_own()?;
    rustix::process::setsid().on("setsid", "exec")?;
    let stdio = terminal::connect(&root, &process, &mut descriptors, null, status, false)?;
    program::enter_cwd(&process.cwd)?;
    let environment = program::environment(&root, &process)?;
    stdio.install()?;
    drop((root, descriptors));
    let program = Program::prepare(&process.args, environment)?;
    identity::assume(&process, spec.seccomp)?.load_last()?;
    program.execute()
}

fn unshare(flags: UnshareFlags, what: &str) -> Result<()> {
    // SAFETY: the flags do not touch the descriptor table.
    unsafe { rustix::thread::unshare_unsafe(flags) }.on("unshare", what)
}

fn read_spec(descriptors: &mut Descriptors) -> Result<LaunchSpec> {
    use std::io::Read as _;
    let fd = descriptors.spec.take().ok_or_else(|| Error::Internal("a spawn request without a spec".to_owned()))?;
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(MAX_SPEC).read_to_end(&mut bytes).on("read", "launch-spec")?;
    LaunchSpec::decode(bytes.as_slice()).map_err(|error| Error::Internal(format!("decode the launch spec: {error}")))
}

/// The agent's /dev/null: a container's own may be anything (CVE-2025-31133).
fn open_null() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).on("open", "/dev/null")
}

/// Waits for StartContainer. The agent's end being closed means that there will be none.
fn wait_for_start(start: &OwnedFd) -> Result<()> {
    let mut byte = [0];
    match rustix::io::retry_on_intr(|| rustix::io::read(start, &mut byte)).on("read", "start pipe")? {
        0 => exit_now(128 + libc::SIGKILL),
        _ => Ok(()),
    }
}
