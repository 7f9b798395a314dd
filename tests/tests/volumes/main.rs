//! What of the host a container sees, and what it may change: `-v` and `--mount`, hostPath, files from ConfigMaps and
//! Secrets, subPath, images as volumes, sizes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod flags;
mod manifests;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// A directory of the host, which the manifest calls HOST.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let directory = TempDir::with_prefix("host-").unwrap();
        // As /srv has it: everybody may enter.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn volume(&self, rest: &str) -> String {
        format!("{}{rest}", self.0.path().display())
    }

    fn manifest(&self, text: &str) -> String {
        text.replace("HOST", &self.0.path().to_string_lossy())
    }
}

/// A tmpfs on the host, gone with its value.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&at).status().unwrap();
        assert!(mounted.success(), "cannot mount a tmpfs at {}", at.display());
        Self(at)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}
