//! Standard streams: pipes that came from the agent, or a pty of the container's own devpts.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use husk_agent_api::v1;
use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid, major, minor};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use super::Descriptors;
use super::root::Root;
use super::status::Status;
use crate::error::{Context, Error, Result};
use crate::fs::mount::{attach, clone_at};
use crate::fs::resolve::{Links, Missing, resolve};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// What becomes descriptors 0, 1 and 2.
#[derive(Debug)]
pub(super) struct Stdio {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Stdio {
    /// Puts them in place.
    pub(super) fn install(self) -> Result<()> {
        rustix::stdio::dup2_stdin(&self.stdin).on("dup2", "standard input")?;
        rustix::stdio::dup2_stdout(&self.stdout).on("dup2", "standard output")?;
        rustix::stdio::dup2_stderr(&self.stderr).on("dup2", "standard error")
    }
}

/// Takes the streams from the request, or makes the terminal, hands its master to the agent and makes it ours.
/// The process must be a session leader.
pub(super) fn connect(
    root: &Root,
    process: &v1::Process,
    descriptors: &mut Descriptors,
    null: OwnedFd,
    status: &Status,
    with_console: bool,
) -> Result<Stdio> {
    let copy = |fd: &OwnedFd| fd.try_clone().on("dup", "standard stream");
    if !process.terminal {
        let stream = |given: Option<OwnedFd>| given.map_or_else(|| copy(&null), Ok);
        return Ok(Stdio {
            stdin: stream(descriptors.stdin.take())?,
            stdout: stream(descriptors.stdout.take())?,
            stderr: stream(descriptors.stderr.take())?,
        });
    }
    let (master, slave) = open_pty(root)?;
    if let Some(size) = &process.window_size {
        let size = window_size(size);
        tcsetwinsize(&master, size).on("ioctl TIOCSWINSZ", "/dev/pts/ptmx")?;
    }
    let uid = process.user.as_ref().map_or(0, |user| user.uid);
    // The group stays the one that devpts was mounted with.
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>).on("fchown", "terminal")?;
    status.console(&master)?;
    drop(master);
    rustix::process::ioctl_tiocsctty(&slave).on("ioctl TIOCSCTTY", "terminal")?;
    if with_console {
        let at = resolve(&root.fd, Path::new("/dev/console"), Missing::File, Links::Refuse)?;
        let bind = clone_at(&slave, false).on("open_tree", "terminal")?;
        attach(&bind, &at).on("move_mount", "/dev/console")?;
    }
    Ok(Stdio { stdin: copy(&slave)?, stdout: copy(&slave)?, stderr: slave })
}

/// A window size within what the kernel holds.
pub(crate) fn window_size(size: &v1::WindowSize) -> Winsize {
    let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    Winsize { ws_row: clamp(size.rows), ws_col: clamp(size.columns), ws_xpixel: 0, ws_ypixel: 0 }
}

/// Opens a pty of the container's devpts. What lies at that path may be anything (CVE-2025-52565), so it is checked
/// and the other end is asked from the kernel by descriptor.
fn open_pty(root: &Root) -> Result<(OwnedFd, OwnedFd)> {
    let path = "/dev/pts/ptmx";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let at = rustix::fs::openat2(&root.fd, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(|errno| Error::precondition(format!("terminal: open {path}: {errno}; mount a devpts on /dev/pts")))?;
    let stat = rustix::fs::fstat(&at).on("fstat", path)?;
    let magic = rustix::fs::fstatfs(&at).on("fstatfs", path)?.f_type;
    let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (5, 2)
        && magic == DEVPTS_MAGIC;
    if !is_ptmx {
        return Err(Error::precondition(format!("terminal: {path} is not the ptmx of a devpts")));
    }
    drop(at);
    // A swap between check and use still yields only a file of the container's own, and unlocking it fails.
    let master = rustix::fs::openat2(&root.fd, path, flags, Mode::empty(), resolve).on("open", path)?;
    rustix::pty::unlockpt(&master).on("ioctl TIOCSPTLCK", path)?;
    let slave =
        rustix::pty::ioctl_tiocgptpeer(master.as_fd(), OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .on("ioctl TIOCGPTPEER", path)?;
    Ok((master, slave))
}
