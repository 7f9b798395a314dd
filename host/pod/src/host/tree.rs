//! Trees of the host that a pod is given.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, mkdirat, openat, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::spec::HostTree;

/// Why a directory or file of the host cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("{} does not exist on the host; make it first", path.display())]
    Missing { path: PathBuf },
    #[error("{} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the path {sub_path:?} below {} leads out of it or over a symbolic link to the outside", path.display())]
    Outside { path: PathBuf, sub_path: String },
    #[error("{sub_path:?} cannot be made below {}: {source}", path.display())]
    Make { path: PathBuf, sub_path: String, source: io::Error },
    #[error("{} is a {kind}: only directories, regular files and sockets of the host can be shared with a VM", path.display())]
    Kind { path: PathBuf, kind: &'static str },
}

/// What makes two trees the same: device, inode, mount, and how the host's mounts below are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: (u32, u32),
    inode: u64,
    mount: u64,
    recursive: bool,
    follows_host: bool,
}

/// An opened source.
#[derive(Debug)]
pub(crate) struct Tree {
    at: OwnedFd,
    path: PathBuf,
    pub(crate) identity: Identity,
    /// Not a tree after all: permission bits, owner and group of a socket.
    pub(crate) socket: Option<(u32, u32, u32)>,
}

impl Tree {
    /// Opens the source; symbolic links on the way to it are followed, as mount(2) does, but none leads out of the
    /// source on the way to the path below it.
    pub(crate) fn open(wanted: &HostTree) -> Result<Self, TreeError> {
        let path = &wanted.source;
        let root = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => TreeError::Missing { path: path.clone() },
            errno => TreeError::Open { path: path.clone(), source: errno.into() },
        })?;
        let at = below(root, path, &wanted.sub_path)?;
        let path = if wanted.sub_path.is_empty() { path.clone() } else { path.join(&wanted.sub_path) };
        let look = |errno: Errno| TreeError::Open { path: path.clone(), source: errno.into() };
        let stat = statx(&at, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID).map_err(look)?;
        let mode = u32::from(stat.stx_mode);
        let refused = |kind| Err(TreeError::Kind { path: path.clone(), kind });
        let socket = match FileType::from_raw_mode(mode) {
            FileType::Directory | FileType::RegularFile => None,
            FileType::Socket => Some((mode & 0o777, stat.stx_uid, stat.stx_gid)),
            FileType::Fifo => return refused("named pipe"),
            FileType::BlockDevice => return refused("block device"),
            FileType::CharacterDevice => return refused("character device"),
            _ => return refused("special file"),
        };
        let identity = Identity {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            mount: stat.stx_mnt_id,
            recursive: wanted.recursive,
            follows_host: wanted.follows_host,
        };
        Ok(Self { at, path, identity, socket })
    }

    /// The opened place itself.
    pub(crate) fn into_place(self) -> OwnedFd {
        self.at
    }

    /// Whether the host has mounts below it.
    pub(crate) fn has_mounts_below(&self) -> io::Result<bool> {
        let own = std::fs::read_link(format!("/proc/self/fd/{}", self.at.as_raw_fd()))?;
        let table = std::fs::read("/proc/self/mountinfo")?;
        let points = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
        Ok(points.map(unescaped).any(|point| point != own && point.starts_with(&own)))
    }

    /// What the VMM is to show: the place itself, where the host's mounts come and go, or a copy of its mounts as they
    /// are now. With `read_only` the host's kernel lets nobody write through the copy's first mount.
    pub(crate) fn into_shared(self, read_only: bool) -> Result<OwnedFd, TreeError> {
        if self.identity.follows_host {
            return Ok(self.at);
        }
        let mut flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        flags.set(OpenTreeFlags::AT_RECURSIVE, self.identity.recursive);
        let copy = open_tree(&self.at, "", flags).map_err(io::Error::from).and_then(|copy| {
            make_private(&copy)?;
            if read_only {
                set_attributes(&copy, 0, libc::MOUNT_ATTR_RDONLY, 0)?;
            }
            Ok(copy)
        });
        copy.map_err(|source| TreeError::Open { path: self.path, source })
    }
}

/// Resolves a relative path below `root`, and makes what is missing with the mode of `root`, as kubelet does for a
/// subPath.
fn below(root: OwnedFd, path: &Path, sub_path: &str) -> Result<OwnedFd, TreeError> {
    const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
    let make =
        |errno: Errno| TreeError::Make { path: path.to_owned(), sub_path: sub_path.to_owned(), source: errno.into() };
    let mut parent = None;
    let mut so_far = PathBuf::new();
    for part in Path::new(sub_path).components() {
        so_far.push(part);
        let open = || loop {
            // EAGAIN: a rename somewhere on the host got in between (openat2(2)).
            match openat2(&root, &so_far, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        };
        let at = match open() {
            Err(Errno::NOENT) => {
                let mode = statx(&root, "", AtFlags::EMPTY_PATH, StatxFlags::MODE).map_err(make)?.stx_mode;
                let mode = Mode::from_raw_mode(u32::from(mode) & 0o777);
                match mkdirat(parent.as_ref().unwrap_or(&root), part.as_os_str(), mode) {
                    Ok(()) | Err(Errno::EXIST) => open().map_err(make)?,
                    Err(errno) => return Err(make(errno)),
                }
            }
            Err(Errno::XDEV | Errno::LOOP) => {
                return Err(TreeError::Outside { path: path.to_owned(), sub_path: sub_path.to_owned() });
            }
            result => result.map_err(make)?,
        };
        parent = Some(at);
    }
    Ok(parent.unwrap_or(root))
}

/// Lets no mount of the host come or go in a copy of its mounts.
fn make_private(tree: impl AsFd) -> io::Result<()> {
    set_attributes(tree, libc::AT_RECURSIVE, 0, libc::MS_PRIVATE)
}

/// mount_setattr(2): sets MOUNT_ATTR_* bits and, unless it is 0, the propagation, with AT_RECURSIVE of the mounts below,
/// too.
fn set_attributes(tree: impl AsFd, flags: libc::c_int, attr_set: u64, propagation: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set, attr_clr: 0, propagation, userns_fd: 0 };
    // SAFETY: the path is an empty C string, and `attributes` is valid for the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A path of the mount table, where blanks and backslashes are octal (`show_mountinfo` of fs/proc_namespace.c).
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree(source: &Path, sub_path: &str) -> Result<Tree, TreeError> {
        Tree::open(&HostTree {
            source: source.to_owned(),
            sub_path: sub_path.into(),
            recursive: true,
            follows_host: false,
            writable_below: false,
        })
    }

    #[test]
    fn paths_of_the_mount_table_are_unescaped() {
        for (text, path) in [("/a\\040b", "/a b"), ("/a\\134040", "/a\\040"), ("/a\\9", "/a\\9"), ("/plain", "/plain")]
        {
            assert_eq!(unescaped(text.as_bytes()), Path::new(path));
        }
    }

    #[test]
    fn mounts_below_a_tree_are_found() {
        assert!(tree(Path::new("/"), "").unwrap().has_mounts_below().unwrap());
        let dir = tempfile::tempdir().unwrap();
        assert!(!tree(dir.path(), "").unwrap().has_mounts_below().unwrap());
    }

    #[test]
    fn directories_and_files_are_trees() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        let (root, file) = (tree(dir.path(), "").unwrap(), tree(&dir.path().join("file"), "").unwrap());
        assert_ne!(root.identity, file.identity);
        assert_eq!(file.identity, tree(dir.path(), "file").unwrap().identity);
        assert!(matches!(tree(&dir.path().join("none"), ""), Err(TreeError::Missing { .. })));
        assert!(matches!(tree(Path::new("/dev/null"), ""), Err(TreeError::Kind { kind: "character device", .. })));
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        assert!(tree(dir.path(), "socket").unwrap().socket.is_some());
    }

    #[test]
    fn a_missing_path_below_is_made_like_its_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        tree(dir.path(), "a/b").unwrap();
        let mode = fs::metadata(dir.path().join("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750 & !0o022);
        tree(dir.path(), "a/b").unwrap();
    }

    #[test]
    fn a_path_below_does_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir(&inside).unwrap();
        symlink("/etc", inside.join("absolute")).unwrap();
        symlink("../..", inside.join("up")).unwrap();
        symlink("target", inside.join("within")).unwrap();
        for bad in ["absolute", "up", "up/x", "absolute/passwd"] {
            assert!(matches!(tree(&inside, bad), Err(TreeError::Outside { .. })), "{bad}");
        }
        assert!(matches!(tree(&inside, "within"), Err(TreeError::Make { .. })), "a dangling link is not followed");
        fs::create_dir(inside.join("target")).unwrap();
        tree(&inside, "within").unwrap();
    }
}
