//! Device nodes and links in a container's /dev.

use std::path::Path;

use husk_agent_api::v1::DeviceNode;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, makedev};
use rustix::io::Errno;

use super::root::Root;
use crate::error::{Context, Error, Result};
use crate::fs::resolve::{Links, Missing, resolve, split};

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

/// Makes the default nodes and links.
pub(super) fn create_defaults(root: &Root) -> Result<()> {
    let nodes: Vec<_> = DEFAULTS
        .iter()
        .map(|(path, major, minor)| DeviceNode {
            path: (*path).to_owned(),
            r#type: "c".to_owned(),
            major: *major,
            minor: *minor,
            mode: 0o666,
            ..DeviceNode::default()
        })
        .collect();
    create(root, &nodes)?;
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

/// Makes `nodes`, replacing what is there.
pub(super) fn create(root: &Root, nodes: &[DeviceNode]) -> Result<()> {
    for node in nodes {
        let path = Path::new(&node.path);
        let (directory, name) = split(path).ok_or_else(|| Error::invalid(format!("devices.path: {:?}", node.path)))?;
        let directory = resolve(&root.fd, directory, Missing::Directory, Links::Follow)?;
        let kind = match node.r#type.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => return Err(Error::invalid(format!("devices.type of {}: {other:?}", node.path))),
        };
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).on("unlinkat", &node.path),
        }
        let mode = Mode::from_raw_mode(node.mode & 0o7777);
        rustix::fs::mknodat(&directory, name, kind, mode, makedev(node.major, node.minor)).on("mknodat", &node.path)?;
        if node.uid != 0 || node.gid != 0 {
            let owner = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
            rustix::fs::chownat(&directory, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
                .on("fchownat", &node.path)?;
        }
    }
    Ok(())
}
