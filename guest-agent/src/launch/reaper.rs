//! PID 1 of the pod's shared pid namespace: it only collects orphans, and the namespace lives as long as it does.
//!
//! Containers see this process. So it gives up everything first: an empty, read-only root of its own, no
//! capabilities, no descriptors.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change};
use rustix::process::WaitOptions;
use rustix::thread::UnshareFlags;

use super::status::Status;
use super::{Never, identity};
use crate::error::{Context, Result};
use crate::fs::mount::{Flags, attach, new_file_system, options};
use crate::paths::NEW_ROOT;

pub(super) fn run(status: &Status) -> Result<Never> {
    let _ = rustix::thread::set_name(c"husk-reaper");
    super::unshare(UnshareFlags::NEWCGROUP, "cgroup namespace")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).on("mount", "/ (private)")?;
    let flags = Flags::from_ms("/", libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)?;
    let empty = new_file_system("tmpfs", options("nr_inodes=2,nr_blocks=1,mode=755"), flags.attributes)?;
    let at = rustix::fs::open(NEW_ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .on("open", NEW_ROOT)?;
    attach(empty.as_fd(), &at).on("move_mount", NEW_ROOT)?;
    drop((at, empty));
    rustix::process::chdir(NEW_ROOT).on("chdir", NEW_ROOT)?;
    rustix::process::pivot_root(".", ".").on("pivot_root", NEW_ROOT)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).on("umount2", "the agent's tree")?;
    rustix::process::chdir("/").on("chdir", "/")?;
    identity::drop_everything()?;
    status.ready()?;
    loop {
        // Without children there is nothing to wait for, so look again after a while: a shared namespace is rare and a
        // wake-up every second is cheap. With children the wait blocks, and every orphan is collected at once.
        if rustix::process::wait(WaitOptions::empty()).is_err() {
            let second = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
            let _ = rustix::thread::nanosleep(&second);
        }
    }
}
