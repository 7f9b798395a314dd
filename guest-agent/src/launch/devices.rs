//! Device nodes and links in a container's /dev.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use husk_agent_api::v1::DeviceNode;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change};

use super::root::Root;
use crate::error::{Context, Error, Result};
use crate::fs::mount::{Flags, attach, clone_at, new_file_system, options};
use crate::fs::resolve::{Links, Missing, resolve, split};
use crate::paths::NEW_ROOT;

/// Nodes that every container has, by the OCI runtime specification: path, major, minor; mode 0666.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Symbolic links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The default nodes, and `extra` ones.
pub(super) fn all(extra: &[DeviceNode]) -> Vec<DeviceNode> {
    let defaults = DEFAULTS.iter().map(|(path, major, minor)| DeviceNode {
        path: (*path).to_owned(),
        r#type: "c".to_owned(),
        major: *major,
        minor: *minor,
        mode: 0o666,
        ..DeviceNode::default()
    });
    defaults.chain(extra.iter().cloned()).collect()
}

/// Makes `nodes`, replacing what is there, and the default links. A node that was made early is bound.
pub(super) fn create(root: &Root, nodes: &[DeviceNode], early: Vec<Option<OwnedFd>>) -> Result<()> {
    let mut early = early.into_iter();
    for node in nodes {
        let path = Path::new(&node.path);
        let (directory, name) = split(path).ok_or_else(|| Error::invalid(format!("devices.path: {:?}", node.path)))?;
        let directory = resolve(&root.fd, directory, Missing::Directory, Links::Follow)?;
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).on("unlinkat", &node.path),
        }
        match early.next().flatten() {
            Some(bind) => {
                let at = resolve(&directory, Path::new(name), Missing::File, Links::Refuse)?;
                attach(&bind, &at).on("move_mount", &node.path)?;
            }
            None => make(&directory, name, node)?,
        }
    }
    let dev = resolve(&root.fd, Path::new("/dev"), Missing::Fail, Links::Follow)?;
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            // A bind-mounted /dev has its own.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).on("symlinkat", format_args!("/dev/{name}")),
        }
    }
    Ok(())
}

/// In a user namespace nobody may make a device. So they are made before, in a file system of their own, of which
/// nothing stays but a bind of each. A named pipe is no device: there is none for it.
pub(super) fn make_early(nodes: &[DeviceNode]) -> Result<Vec<Option<OwnedFd>>> {
    let flags = Flags::from_ms(NEW_ROOT, libc::MS_NOSUID | libc::MS_NOEXEC)?;
    let place = new_file_system("tmpfs", options("mode=700"), flags.attributes)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).on("mount", "/ (private)")?;
    let at = rustix::fs::open(NEW_ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .on("open", NEW_ROOT)?;
    // Only of an attached mount there are copies.
    attach(&place, &at).on("move_mount", NEW_ROOT)?;
    let bind = |(number, node): (usize, &DeviceNode)| {
        if node.r#type == "p" {
            return Ok(None);
        }
        let name = number.to_string();
        make(&place, name.as_ref(), node)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = rustix::fs::openat(&place, &name, flags, Mode::empty()).on("open", &node.path)?;
        clone_at(&at, false).on("open_tree", &node.path).map(Some)
    };
    let binds = nodes.iter().enumerate().map(bind).collect::<Result<Vec<_>>>()?;
    rustix::mount::unmount(NEW_ROOT, UnmountFlags::DETACH).on("umount2", NEW_ROOT)?;
    Ok(binds)
}

fn make(directory: &OwnedFd, name: &OsStr, node: &DeviceNode) -> Result<()> {
    let kind = match node.r#type.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => return Err(Error::invalid(format!("devices.type of {}: {other:?}", node.path))),
    };
    let mode = Mode::from_raw_mode(node.mode & 0o7777);
    rustix::fs::mknodat(directory, name, kind, mode, makedev(node.major, node.minor)).on("mknodat", &node.path)?;
    if node.uid != 0 || node.gid != 0 {
        let owner = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        rustix::fs::chownat(directory, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
            .on("fchownat", &node.path)?;
    }
    Ok(())
}
