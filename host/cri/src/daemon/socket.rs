//! The socket that CRI is spoken on: only root may open it, and a new one takes an old one's place only where nobody
//! listens any more.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A listening socket that takes its name along when it goes.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    _name: Name,
}

impl Socket {
    /// Listens at `path`. The caller sees to it that no other huskd does this meanwhile.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there, or when what is there is no socket.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        match UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there")),
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {}
            Err(error) => return Err(error),
        }
        // A connection to a plain file is refused, too.
        if std::fs::symlink_metadata(path).is_ok_and(|found| !is_socket(&found)) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "there is something that is not a socket"));
        }
        // It gets its rights before it gets its name, so that at no time others can connect.
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        std::fs::rename(&new, path)?;
        let found = std::fs::symlink_metadata(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, _name: Name { path: path.to_owned(), id: (found.dev(), found.ino()) } })
    }

    /// The listener, and what removes the name when dropped.
    pub(super) fn into_parts(self) -> (UnixListener, impl Drop) {
        (self.listener, self._name)
    }
}

fn is_socket(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

#[derive(Debug)]
struct Name {
    path: PathBuf,
    id: (u64, u64),
}

impl Drop for Name {
    fn drop(&mut self) {
        // Not somebody else's, who may have come meanwhile.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.id) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_may_open_it_and_it_takes_its_name_along() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cri.sock");
        let socket = Socket::listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_that_is_listened_on_stays_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cri.sock");
        // Without the guard the name stays, as after a crash.
        let crashed = UnixListener::bind(&path).unwrap();
        assert_eq!(Socket::listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(crashed);
        let socket = Socket::listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        // Nor does it take away what took its place.
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cri.sock");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(Socket::listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
