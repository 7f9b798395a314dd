//! Network namespaces that have a name in the file system.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{fstat, fstatfs, stat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use tokio::sync::oneshot;

use crate::link;

/// Where named network namespaces stand by convention; see ip-netns(8).
pub const RUN_NETNS: &str = "/run/netns";

/// `NSFS_MAGIC` of include/uapi/linux/magic.h.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Mounts found one above the other when a namespace is removed; more than that is not ours.
const MAX_STACKED: usize = 16;

/// A network namespace, held open. Dropping it leaves the name.
#[derive(Debug)]
pub struct NetNs {
    path: PathBuf,
    file: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    #[error("{name:?} cannot name a network namespace: 1 to 255 letters, digits, dots, underscores and hyphens")]
    BadName { name: String },
    #[error("network namespace {} already exists; remove it first or take another name", path.display())]
    AlreadyExists { path: PathBuf },
    #[error("there is no network namespace {}", path.display())]
    Missing { path: PathBuf },
    #[error("network namespace {}: cannot {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    #[error("network namespace {}: the work inside it panicked", path.display())]
    Panicked { path: PathBuf },
    #[error("network namespace {}: cannot set lo up: {source}", path.display())]
    Loopback { path: PathBuf, source: io::Error },
}

impl NetNsError {
    fn io<E: Into<io::Error>>(path: &Path, action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { path: path.to_owned(), action, source: source.into() }
    }
}

impl NetNs {
    /// Makes a fresh namespace with lo up and binds it to `dir/name`; `dir` ([`RUN_NETNS`] by convention) is made where
    /// it is missing. Nothing is left when it fails.
    pub async fn create(dir: &Path, name: &str) -> Result<Self, NetNsError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=255).contains(&name.len()) || !name.bytes().all(plain) || name == "." || name == ".." {
            return Err(NetNsError::BadName { name: name.chars().take(300).collect() });
        }
        let path = dir.join(name);
        let made = path.clone();
        on_a_thread(&path, move || create(&made)).await?
    }

    /// Opens the namespace that `path` names: a bind mount, or a process's `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(NetNsError::Missing { path: path.to_owned() });
            }
            result => result.map_err(NetNsError::io(path, "open it"))?,
        };
        // The name without the mount is what remains of a namespace after a reboot.
        let kind = fstatfs(&file).map_err(NetNsError::io(path, "look at it"))?.f_type;
        if kind != NSFS_MAGIC {
            return Err(NetNsError::Missing { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), file: file.into() })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the calling thread's own.
    pub(crate) fn is_own(&self) -> io::Result<bool> {
        let (this, own) = (fstat(&self.file)?, stat("/proc/thread-self/ns/net")?);
        Ok((this.st_dev, this.st_ino) == (own.st_dev, own.st_ino))
    }

    /// Runs `work` inside the namespace, on a thread of its own that ends with it.
    pub async fn run<T, F>(&self, work: F) -> Result<T, NetNsError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let file = self.file.try_clone().map_err(NetNsError::io(&self.path, "open it again"))?;
        let path = self.path.clone();
        on_a_thread(&self.path, move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(NetNsError::io(&path, "enter it (this needs CAP_SYS_ADMIN)"))?;
            Ok(work())
        })
        .await?
    }

    /// Removes the name `path`, and with its last user the namespace. That there is none is no error.
    pub fn remove(path: &Path) -> Result<(), NetNsError> {
        for _ in 0..MAX_STACKED {
            match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => {}
                // Not, or no longer, a mount.
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(error) => return Err(NetNsError::io(path, "unmount it")(error)),
            }
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(NetNsError::io(path, "remove its name")),
        }
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

async fn on_a_thread<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NetNsError> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(move || {
            // Nobody listens any more when the caller was cancelled.
            let _ = tell.send(work());
        })
        .map_err(NetNsError::io(path, "start a thread for it"))?;
    told.await.map_err(|_| NetNsError::Panicked { path: path.to_owned() })
}

/// Changes the namespace of the calling thread.
fn create(path: &Path) -> Result<NetNs, NetNsError> {
    if let Some(dir) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(NetNsError::io(path, "make its directory"))?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o444).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(NetNsError::AlreadyExists { path: path.to_owned() });
        }
        result => result.map_err(NetNsError::io(path, "make its name"))?,
    };
    furnish(path).inspect_err(|_| {
        if let Err(error) = NetNs::remove(path) {
            tracing::warn!(%error, "a network namespace that failed to start is not wholly removed");
        }
    })
}

fn furnish(path: &Path) -> Result<NetNs, NetNsError> {
    // SAFETY: a new network namespace takes nothing away from the thread that any descriptor or memory relies on.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(NetNsError::io(path, "make it (this needs CAP_SYS_ADMIN)"))?;
    // Of this thread, which alone is in the new namespace.
    mount_bind("/proc/thread-self/ns/net", path).map_err(NetNsError::io(path, "bind it to its name"))?;
    link::set_loopback_up().map_err(|source| NetNsError::Loopback { path: path.to_owned(), source })?;
    NetNs::open(path)
}
