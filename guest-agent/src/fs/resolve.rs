//! Resolves a path below a root that a hostile image or container has written.
//!
//! The walk is our own, so that missing directories can be made and a dangling symbolic link ends inside the root, as
//! chroot(2) would see it; yet every look-up is `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS |
//! RESOLVE_NO_MAGICLINKS)`, so a link that appears between two steps makes the walk fail and never leads it outside
//! (the class of CVE-2019-19921 and CVE-2021-30465).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Links followed before giving up, as path_resolution(7) has it.
const MAX_LINKS: usize = 40;
/// Components walked before giving up.
const MAX_COMPONENTS: usize = 4096;

/// What to make of a last component that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Nothing: report `NOENT`.
    Fail,
    /// A directory, mode 0755.
    Directory,
    /// A directory with the mode of the root that is resolved below, as the kubelet makes a missing `subPath`: a user
    /// who may write to the volume may write to the part of it.
    DirectoryLikeRoot,
    /// An empty file.
    File,
}

/// Whether symbolic links are followed (below the root).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// As chroot(2) would.
    Follow,
    /// Any link on the way is an error (`LOOP`).
    Refuse,
}

const STRICT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens `path` (without links on the way) below `root` as an `O_PATH` descriptor.
fn open(root: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty(), STRICT)
}

fn components(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

/// Resolves `path` below `root` to an `O_PATH` descriptor. Missing directories on the way are made unless
/// `missing` is [`Missing::Fail`].
pub fn resolve(root: impl AsFd, path: &Path, missing: Missing, links: Links) -> Result<OwnedFd> {
    let root = root.as_fd();
    let shown = path.display();
    let directory_mode = match missing {
        Missing::DirectoryLikeRoot => Mode::from_raw_mode(rustix::fs::fstat(root).on("fstat", &shown)?.st_mode & 0o777),
        Missing::Fail | Missing::Directory | Missing::File => Mode::from_raw_mode(0o755),
    };
    let mut queue: VecDeque<OsString> = components(path).collect();
    let mut resolved = PathBuf::new();
    let (mut followed, mut walked) = (0_usize, 0_usize);
    while let Some(name) = queue.pop_front() {
        walked = walked.saturating_add(1);
        if walked > MAX_COMPONENTS {
            return Err(Errno::NAMETOOLONG).on("resolve", &shown);
        }
        if name == ".." {
            resolved.pop();
            continue;
        }
        let parent = open(root, &resolved, OFlags::DIRECTORY).on("openat2", &shown)?;
        match rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                followed = followed.saturating_add(1);
                if links == Links::Refuse || followed > MAX_LINKS {
                    return Err(Errno::LOOP).on("resolve", &shown);
                }
                let target = rustix::fs::readlinkat(&parent, &name, Vec::new()).on("readlinkat", &shown)?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    resolved.clear();
                }
                for component in components(&target).rev() {
                    queue.push_front(component);
                }
                continue;
            }
            Ok(_) => {}
            Err(Errno::NOENT) => {
                make(&parent, &name, missing, directory_mode, queue.is_empty()).on("create", &shown)?;
            }
            Err(errno) => return Err(errno).on("statx", &shown),
        }
        resolved.push(name);
    }
    open(root, &resolved, OFlags::empty()).on("openat2", &shown)
}

fn make(
    parent: impl AsFd,
    name: &OsString,
    missing: Missing,
    directory_mode: Mode,
    last: bool,
) -> rustix::io::Result<()> {
    let made = match missing {
        Missing::Fail => return Err(Errno::NOENT),
        Missing::File if last => rustix::fs::openat(
            parent,
            name,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )
        .map(drop),
        Missing::DirectoryLikeRoot => {
            rustix::fs::mkdirat(&parent, name, directory_mode).and_then(|()| set_mode(&parent, name, directory_mode))
        }
        Missing::File | Missing::Directory => rustix::fs::mkdirat(parent, name, directory_mode),
    };
    // Another process may have made it meanwhile; what it is shows when it is opened, which follows no link.
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Gives a directory its mode whatever the umask; follows no link that has taken its place.
fn set_mode(parent: impl AsFd, name: &OsString, mode: Mode) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::fchmod(rustix::fs::openat(parent, name, flags, Mode::empty())?, mode)
}

/// Checks that `path` from a request is absolute, has no `..`, no NUL, and is not too long.
pub fn check_absolute(field: &str, path: &str) -> Result<()> {
    let bad = |why: &str| Err(Error::invalid(format!("{field}: {path:?} {why}")));
    if !path.starts_with('/') {
        return bad("is not an absolute path");
    }
    check_relative(field, path)
}

/// Checks that `path` from a request has no `..`, no NUL, and is not too long.
pub fn check_relative(field: &str, path: &str) -> Result<()> {
    let bad = |why: &str| Err(Error::invalid(format!("{field}: {path:?} {why}")));
    if path.len() >= 4096 {
        return Err(Error::invalid(format!("{field}: longer than 4095 bytes")));
    }
    if path.as_bytes().contains(&0) {
        return bad("contains a NUL byte");
    }
    if Path::new(path).components().any(|component| component == Component::ParentDir) {
        return bad("contains \"..\"");
    }
    Ok(())
}

/// The file type behind an open descriptor.
pub fn file_type(fd: impl AsFd) -> rustix::io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// Splits an absolute path into its directory and last component.
#[must_use]
pub fn split(path: &Path) -> Option<(&Path, &std::ffi::OsStr)> {
    let name = path.file_name()?;
    (!name.as_bytes().is_empty()).then_some((path.parent()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let fd = rustix::fs::open(dir.path().join("root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn missing_directories_and_a_file_are_made() {
        let (dir, root) = root();
        let fd = resolve(&root, Path::new("/etc/deep/hosts"), Missing::File, Links::Follow).unwrap();
        assert_eq!(file_type(fd).unwrap(), FileType::RegularFile);
        assert!(dir.path().join("root/etc/deep/hosts").is_file());
    }

    #[test]
    fn a_directory_like_the_root_has_its_mode() {
        let (dir, root) = root();
        let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        std::fs::set_permissions(dir.path().join("root"), std::fs::Permissions::from_mode(0o777)).unwrap();
        resolve(&root, Path::new("a/b"), Missing::DirectoryLikeRoot, Links::Follow).unwrap();
        assert_eq!((mode("root/a"), mode("root/a/b")), (0o777, 0o777));
    }

    #[test]
    fn an_absolute_link_stays_below_the_root() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        symlink(dir.path().join("outside"), dir.path().join("root/link")).unwrap();
        resolve(&root, Path::new("/link/x"), Missing::Directory, Links::Follow).unwrap();
        assert!(!dir.path().join("outside/x").exists());
        let inside = dir.path().join("root").join(dir.path().strip_prefix("/").unwrap()).join("outside/x");
        assert!(inside.is_dir());
    }

    #[test]
    fn a_relative_link_cannot_climb_out() {
        let (dir, root) = root();
        symlink("../../../outside", dir.path().join("root/link")).unwrap();
        resolve(&root, Path::new("/link"), Missing::Directory, Links::Follow).unwrap();
        assert!(dir.path().join("root/outside").is_dir());
        assert!(!dir.path().join("outside").exists());
    }

    #[test]
    fn a_dangling_link_is_completed_inside() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("root/etc")).unwrap();
        symlink("../run/systemd/stub.conf", dir.path().join("root/etc/resolv.conf")).unwrap();
        resolve(&root, Path::new("/etc/resolv.conf"), Missing::File, Links::Follow).unwrap();
        assert!(dir.path().join("root/run/systemd/stub.conf").is_file());
    }

    #[test]
    fn a_loop_of_links_ends() {
        let (dir, root) = root();
        symlink("b", dir.path().join("root/a")).unwrap();
        symlink("a", dir.path().join("root/b")).unwrap();
        assert!(resolve(&root, Path::new("/a/x"), Missing::Directory, Links::Follow).is_err());
    }

    #[test]
    fn refused_links_are_an_error() {
        let (dir, root) = root();
        symlink("/elsewhere", dir.path().join("root/proc")).unwrap();
        let error = resolve(&root, Path::new("/proc"), Missing::Directory, Links::Refuse).unwrap_err();
        assert!(matches!(error, Error::System { errno: Errno::LOOP, .. }), "{error}");
    }

    #[test]
    fn a_missing_path_is_reported_when_nothing_may_be_made() {
        let (_dir, root) = root();
        let error = resolve(&root, Path::new("/nothing"), Missing::Fail, Links::Follow).unwrap_err();
        assert!(matches!(error, Error::System { errno: Errno::NOENT, .. }), "{error}");
    }

    #[test]
    fn the_root_itself_resolves() {
        let (_dir, root) = root();
        for path in ["/", "", "/.", "/x/.."] {
            let fd = resolve(&root, Path::new(path), Missing::Directory, Links::Follow).unwrap();
            assert_eq!(rustix::fs::fstat(&fd).unwrap().st_ino, rustix::fs::fstat(&root).unwrap().st_ino, "{path:?}");
        }
    }

    #[test]
    fn paths_of_requests_are_checked() {
        assert!(check_absolute("mounts.destination", "/data/a..b").is_ok());
        for bad in ["", "data", "/../etc", "/a/../b", "/a\0b", &format!("/{}", "a".repeat(4096))] {
            assert!(check_absolute("mounts.destination", bad).is_err(), "{bad:?}");
        }
    }
}
