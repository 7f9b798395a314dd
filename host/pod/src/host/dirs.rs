//! The pod's directories, and the names of the files in them.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// `sockaddr_un` holds 107 bytes of path and a NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Where a pod keeps its files.
#[derive(Clone, Debug)]
pub(crate) struct PodDirs {
    /// Small, on a tmpfs: sockets, logs, what teardown needs to know.
    state: PathBuf,
    /// Large, on a disk: the scratch image.
    data: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum DirError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "the socket path {} has {} bytes and a unix socket's at most {MAX_SOCKET_PATH}; \
         use a shorter state directory (HUSK_RUN), namespace or pod id",
        path.display(), path.as_os_str().len()
    )]
    SocketPathTooLong { path: PathBuf },
}

impl DirError {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl PodDirs {
    pub(crate) fn new(state: &Path, data: &Path) -> Self {
        Self { state: state.to_owned(), data: data.to_owned() }
    }

    /// Makes both directories, readable by their owner only.
    pub(crate) fn create(&self) -> Result<(), DirError> {
        let socket = self.vsock();
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(DirError::SocketPathTooLong { path: socket });
        }
        for dir in [&self.state, &self.data] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o700)))
                .map_err(DirError::io("make the directory", dir))?;
        }
        Ok(())
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The VM's vsock device: hybrid protocol on a unix socket.
    pub(crate) fn vsock(&self) -> PathBuf {
        self.state.join("vsock.sock")
    }

    /// What the guest's kernel and agent print; bounded by the VMM.
    pub(crate) fn console_log(&self) -> PathBuf {
        self.state.join("console.log")
    }

    /// What the VMM itself prints.
    pub(crate) fn vmm_log(&self) -> PathBuf {
        self.state.join("vmm.log")
    }

    /// Process id and start time of the VMM.
    pub(crate) fn vmm_pid(&self) -> PathBuf {
        self.state.join("vmm.pid")
    }

    /// The cgroup that was made for the VMM, when one was.
    pub(crate) fn cgroup_record(&self) -> PathBuf {
        self.state.join("cgroup")
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.data.join("scratch.img")
    }
}

/// A log that only its owner reads, emptied of an earlier pod's lines.
pub(crate) fn open_log(path: &Path) -> Result<File, DirError> {
    remove_file(path)?;
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path).map_err(DirError::io("make the log", path))
}

/// Removes a file; that it is not there is no error.
pub(crate) fn remove_file(path: &Path) -> Result<(), DirError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(DirError::io("remove", path)),
    }
}

/// Writes a small file that teardown will read.
pub(crate) fn write_record(path: &Path, text: &str) -> Result<(), DirError> {
    std::fs::write(path, text).map_err(DirError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_private_and_making_them_twice_is_fine() {
        let root = tempfile::tempdir().unwrap();
        let dirs = PodDirs::new(&root.path().join("run/ns/p"), &root.path().join("data/ns/p"));
        dirs.create().unwrap();
        dirs.create().unwrap();
        let mode = std::fs::metadata(dirs.state()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_named() {
        let root = tempfile::tempdir().unwrap();
        let dirs = PodDirs::new(&root.path().join("x".repeat(100)), &root.path().join("data"));
        assert!(matches!(dirs.create(), Err(DirError::SocketPathTooLong { .. })));
        assert!(std::fs::read_dir(root.path()).unwrap().next().is_none(), "nothing was made");
    }

    #[test]
    fn a_log_begins_empty_and_does_not_follow_a_link() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        let log = root.path().join("console.log");
        std::os::unix::fs::symlink(&target, &log).unwrap();
        open_log(&log).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
    }
}
