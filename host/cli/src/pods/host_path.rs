//! hostPath volumes: what must be on the host before a pod starts, checked and made as kubelet and its runtimes do.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use thiserror::Error;

use super::plan::{HostPath, HostPathKind};

/// Why a path of the host cannot be mounted.
#[derive(Debug, Error)]
pub(crate) enum HostPathError {
    #[error("{} is not there, and a hostPath of type {wanted} does not make it: make it first, or use {instead}", path.display())]
    Missing { path: PathBuf, wanted: &'static str, instead: &'static str },
    #[error("{} is {found}, and the hostPath's type is {wanted}: change one of the two", path.display())]
    OtherKind { path: PathBuf, found: &'static str, wanted: &'static str },
    #[error("{} is {found}: only directories, regular files and sockets of the host can be mounted", path.display())]
    Unusable { path: PathBuf, found: &'static str },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl HostPath {
    /// Makes what the kind says, and checks what is there. Links are followed, as a bind mount follows them.
    ///
    /// # Errors
    ///
    /// When something else is at the path, or nothing and the kind makes nothing.
    pub(crate) fn ensure(&self) -> Result<(), HostPathError> {
        let io = |source| HostPathError::Io { path: self.path.clone(), source };
        match fs::metadata(&self.path) {
            Ok(metadata) => self.check(&metadata),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io(e)),
            Err(_) => match self.kind {
                // Modes as kubelet (`pkg/volume/hostpath`) and containerd have them.
                HostPathKind::Any | HostPathKind::DirectoryOrCreate => {
                    DirBuilder::new().recursive(true).mode(0o755).create(&self.path).map_err(io)
                }
                HostPathKind::FileOrCreate => {
                    let made = File::options().write(true).create_new(true).mode(0o644).open(&self.path);
                    made.map(drop).map_err(io)
                }
                kind => Err(HostPathError::Missing {
                    path: self.path.clone(),
                    wanted: kind.as_str(),
                    instead: if kind == HostPathKind::File { "FileOrCreate" } else { "DirectoryOrCreate" },
                }),
            },
        }
    }

    fn check(&self, metadata: &Metadata) -> Result<(), HostPathError> {
        let kind = metadata.file_type();
        let (found, fits) = match self.kind {
            _ if kind.is_block_device() => ("a block device", None),
            _ if kind.is_char_device() => ("a character device", None),
            _ if kind.is_fifo() => ("a FIFO", None),
            HostPathKind::Any => ("", Some(true)),
            HostPathKind::Directory | HostPathKind::DirectoryOrCreate => (name(metadata), Some(kind.is_dir())),
            HostPathKind::File | HostPathKind::FileOrCreate => (name(metadata), Some(kind.is_file())),
            HostPathKind::Socket => (name(metadata), Some(kind.is_socket())),
        };
        let path = || self.path.clone();
        match fits {
            Some(true) => Ok(()),
            Some(false) => Err(HostPathError::OtherKind { path: path(), found, wanted: self.kind.as_str() }),
            None => Err(HostPathError::Unusable { path: path(), found }),
        }
    }
}

fn name(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a regular file"
    }
}

impl HostPathKind {
    /// As manifests name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Any => "\"\"",
            Self::DirectoryOrCreate => "DirectoryOrCreate",
            Self::Directory => "Directory",
            Self::FileOrCreate => "FileOrCreate",
            Self::File => "File",
            Self::Socket => "Socket",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_the_kinds_that_say_so_make_something() {
        use HostPathKind::{Any, Directory, DirectoryOrCreate, File, FileOrCreate, Socket};
        let dir = tempfile::tempdir().unwrap();
        for (name, kind) in [("any/deep", Any), ("dirs/deep", DirectoryOrCreate)] {
            let path = dir.path().join(name);
            HostPath { path: path.clone(), kind }.ensure().unwrap();
            assert!(path.is_dir());
        }
        let file = dir.path().join("file");
        HostPath { path: file.clone(), kind: FileOrCreate }.ensure().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o700, 0o600);
        assert!(HostPath { path: dir.path().join("no/parent"), kind: FileOrCreate }.ensure().is_err());
        for kind in [Directory, File, Socket] {
            let path = dir.path().join("absent");
            let error = HostPath { path: path.clone(), kind }.ensure().unwrap_err();
            assert!(matches!(error, HostPathError::Missing { .. }), "{error}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_is_there_must_be_of_the_kind() {
        use HostPathKind::{Any, Directory, DirectoryOrCreate, File, FileOrCreate, Socket};
        let dir = tempfile::tempdir().unwrap();
        let (file, socket, link) = (dir.path().join("file"), dir.path().join("socket"), dir.path().join("link"));
        fs::write(&file, "").unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let of = |path: &PathBuf, kind| HostPath { path: path.clone(), kind }.ensure();
        for kind in [Any, File, FileOrCreate] {
            of(&file, kind).unwrap();
            of(&link, kind).unwrap();
        }
        for kind in [Any, Socket] {
            of(&socket, kind).unwrap();
        }
        for kind in [Directory, DirectoryOrCreate, Socket] {
            assert!(matches!(of(&file, kind), Err(HostPathError::OtherKind { .. })));
        }
        assert!(matches!(of(&PathBuf::from("/dev/null"), Any), Err(HostPathError::Unusable { .. })));
    }
}
