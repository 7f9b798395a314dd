//! The zygote itself: receive a request, clone, answer. Everything that takes time happens in the cloned process.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use prost::Message as _;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::DumpableBehavior;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};

use super::channel;
use super::message::{Job, Role, SpawnHeader, SpawnReply};
use crate::launch::{self, Crossing, Descriptors};
use crate::sys::{CLONE_NEWNS, CLONE_NEWPID, CLONE_PARENT, Cloned, clone3, exit_now};

/// Serves until PID 1 has gone.
pub fn run(channel: OwnedFd) -> ! {
    // PID 1's hook ends the VM; a process that is being launched may only end itself.
    std::panic::set_hook(Box::new(|panic| {
        crate::error!("launch: {panic}");
        exit_now(101);
    }));
    crate::sys::reset_signals();
    let _ = rustix::thread::set_name(c"husk-zygote");
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // The kernel must never choose the zygote for its memory: no container could be made any more.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let own_pid_namespace = match std::fs::File::open("/proc/self/ns/pid") {
        Ok(file) => OwnedFd::from(file),
        Err(error) => {
            crate::error!("zygote: open /proc/self/ns/pid: {error}");
            exit_now(1)
        }
    };
    loop {
        let (reply, pidfd) = match channel::receive(&channel) {
            Ok(None) => exit_now(0),
            Ok(Some((bytes, fds))) => match spawn(&bytes, fds, &channel, &own_pid_namespace) {
                Ok((pid, pidfd)) => (SpawnReply { pid, error: String::new() }, Some(pidfd)),
                Err(error) => (SpawnReply { pid: 0, error }, None),
            },
            Err(Errno::MSGSIZE) => (SpawnReply { pid: 0, error: "the request is too long".to_owned() }, None),
            Err(errno) => {
                crate::error!("zygote: recvmsg: {errno}");
                exit_now(1)
            }
        };
        let fds: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
        if let Err(errno) = channel::send(&channel, &reply.encode_to_vec(), &fds) {
            crate::error!("zygote: sendmsg: {errno}");
            exit_now(1);
        }
    }
}

fn spawn(
    bytes: &[u8],
    fds: Vec<OwnedFd>,
    channel: &OwnedFd,
    own_pid_namespace: &OwnedFd,
) -> Result<(i32, OwnedFd), String> {
    let header = SpawnHeader::decode(bytes).map_err(|error| format!("decode the request: {error}"))?;
    if header.roles.len() != fds.len() {
        return Err(format!("{} roles for {} descriptors", header.roles.len(), fds.len()));
    }
    let mut descriptors = Descriptors::default();
    for (role, fd) in header.roles.iter().zip(fds) {
        descriptors.put(Role::try_from(*role).unwrap_or(Role::Unspecified), fd);
    }
    let job = Job::try_from(header.job).unwrap_or(Job::Unspecified);
    if job != Job::Exec && descriptors.user_namespace.is_some() {
        return spawn_in_user_namespace(job, descriptors, header.new_pid_namespace, [channel, own_pid_namespace]);
    }
    let mut flags = CLONE_PARENT;
    if job == Job::Init || job == Job::Reaper {
        flags |= CLONE_NEWNS;
    }
    if header.new_pid_namespace {
        flags |= CLONE_NEWPID;
    }
    // Joining a pid namespace concerns only the children made from then on, so we go in, clone, and come back.
    let joined = descriptors.pid_namespace.take();
    if let Some(pidfd) = &joined {
        move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)
            .map_err(|errno| format!("join the pid namespace: {errno}"))?;
    }
    // SAFETY: the zygote never makes a thread.
    let cloned = unsafe { clone3(flags, descriptors.cgroup.as_ref().map(AsRawFd::as_raw_fd)) };
    if let Ok(Cloned::Child) = cloned {
        // The channel would give a container the power over all others: it goes before anything else happens.
        close(channel);
        close(own_pid_namespace);
        drop(joined);
        launch::run(job, descriptors);
    }
    if joined.is_some()
        && let Err(errno) = move_into_link_name_space(own_pid_namespace.as_fd(), Some(LinkNameSpaceType::ProcessID))
    {
        // Every later container would land in the wrong namespace.
        crate::error!("zygote: return to the own pid namespace: {errno}");
        exit_now(1);
    }
    match cloned {
        Ok(Cloned::Parent { pid, pidfd }) => Ok((pid, pidfd)),
        Ok(Cloned::Child) => Err("unreachable: the child has returned".to_owned()),
        Err(errno) => Err(format!("clone3: {errno}")),
    }
}

/// Makes a first process, which makes the one that is wanted in its user namespace (`launch::users`).
fn spawn_in_user_namespace(
    job: Job,
    mut descriptors: Descriptors,
    new_pid_namespace: bool,
    private: [&OwnedFd; 2],
) -> Result<(i32, OwnedFd), String> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| format!("socketpair: {errno}"))?;
    // SAFETY: the zygote never makes a thread.
    let cloned = unsafe { clone3(CLONE_PARENT | CLONE_NEWNS, descriptors.cgroup.as_ref().map(AsRawFd::as_raw_fd)) };
    if let Ok(Cloned::Child) = cloned {
        private.into_iter().for_each(close);
        drop(ours);
        descriptors.crossing = Some(Crossing { zygote: theirs, new_pid_namespace });
        launch::run(job, descriptors);
    }
    cloned.map_err(|errno| format!("clone3: {errno}"))?;
    drop(theirs);
    // Until it has answered or ended, which it soon does: it waits for nobody.
    let (bytes, mut fds) = match channel::receive(&ours) {
        Ok(Some(answer)) => answer,
        Ok(None) => return Err("it has ended before it was in its user namespace".to_owned()),
        Err(errno) => return Err(format!("recvmsg: {errno}")),
    };
    let reply = SpawnReply::decode(bytes.as_slice()).map_err(|error| format!("decode the answer: {error}"))?;
    let pidfd = fds.pop().ok_or_else(|| "the answer has no pidfd".to_owned())?;
    Ok((reply.pid, pidfd))
}

/// Closes a descriptor that we only borrow, in a child that will never return to its owner.
fn close(fd: &OwnedFd) {
    // SAFETY: the child never returns to the code that owns `fd`, so nobody uses or closes it again.
    unsafe { rustix::io::close(fd.as_raw_fd()) };
}
