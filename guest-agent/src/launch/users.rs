//! Into a user namespace.
//!
//! The namespaces of a container must belong to its user namespace, or its root could do nothing with them. So its first
//! process is made in two steps. One that the zygote has made does what only the guest's own root can do, enters the user
//! namespace, becomes root there, and makes the second, which goes on with all that the first had opened. A further
//! process of a container enters by itself, for it makes no namespaces.

use std::os::fd::{AsFd, OwnedFd};

use prost::Message as _;
use rustix::fs::{Gid, Uid};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space, move_into_thread_name_spaces,
};

use super::status::Status;
use super::{Descriptors, Never};
use crate::error::{Context, Error, Result};
use crate::sys::{CLONE_NEWNS, CLONE_NEWPID, CLONE_PARENT, Cloned, clone3, exit_now, set_rlimit};
use crate::zygote::channel;
use crate::zygote::message::SpawnReply;

/// How the first process makes the second.
#[derive(Debug)]
pub struct Crossing {
    /// Where the zygote waits for a [`SpawnReply`] and the second process's pidfd.
    pub zygote: OwnedFd,
    /// Whether the second is PID 1 of a new pid namespace.
    pub new_pid_namespace: bool,
}

/// Goes on in a new process in the user namespace, if there is one to enter; the first process ends here.
pub(super) fn cross(descriptors: &mut Descriptors) -> Result<()> {
    let (Some(crossing), Some(namespace)) = (descriptors.crossing.take(), descriptors.user_namespace.take()) else {
        return Ok(());
    };
    if let Some(pidfd) = descriptors.pid_namespace.take() {
        // It concerns the second process alone.
        move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)
            .on("setns", "process namespace")?;
    }
    enter(&namespace)?;
    let mut flags = CLONE_PARENT | CLONE_NEWNS;
    if crossing.new_pid_namespace {
        flags |= CLONE_NEWPID;
    }
    // SAFETY: a process that is being launched has one thread.
    match unsafe { clone3(flags, None) }.on("clone3", "user namespace")? {
        Cloned::Child => Ok(()),
        Cloned::Parent { pid, pidfd } => {
            let reply = SpawnReply { pid, error: String::new() };
            channel::send(&crossing.zygote, &reply.encode_to_vec(), &[pidfd.as_fd()]).on("sendmsg", "zygote")?;
            exit_now(0)
        }
    }
}

/// Enters a user namespace and becomes its root. What has no id there can make nothing, and owns nothing.
pub(super) fn enter(namespace: &OwnedFd) -> Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User)).on("setns", "user namespace")?;
    rustix::thread::set_thread_groups(&[]).on("setgroups", "none")?;
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    rustix::thread::set_thread_res_gid(gid, gid, gid).on("setresgid", "root of the user namespace")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).on("setresuid", "root of the user namespace")
}

/// Is a new user namespace until PID 1 has written its maps and holds it by itself.
pub(super) fn hold(mut descriptors: Descriptors, status: &Status) -> Result<Never> {
    // What all processes of a namespace may have together is what its maker may have.
    for resource in [libc::RLIMIT_NPROC, libc::RLIMIT_MEMLOCK, libc::RLIMIT_SIGPENDING, libc::RLIMIT_MSGQUEUE] {
        set_rlimit(resource, u64::MAX, u64::MAX).on("prlimit64", resource)?;
    }
    super::unshare(UnshareFlags::NEWUSER, "user namespace")?;
    status.ready()?;
    let start = descriptors.start.take();
    let start = start.ok_or_else(|| Error::Internal("a user namespace without a start pipe".to_owned()))?;
    super::wait_for_start(&start)?;
    exit_now(0)
}
