//! Where an image is made before it is an image: a directory in the store's `tmp`, locked by the
//! process that works in it, so that another process can tell a live one from a leftover.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory that vanishes unless it is moved into place.
#[derive(Debug)]
pub(super) struct Staging {
    dir: TempDir,
    _lock: File,
}

impl Staging {
    /// Makes one. The caller holds the store's lock, so no sweep can come between making the
    /// directory and locking it.
    pub(super) fn new_in(tmp: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("image-").tempdir_in(tmp)?;
        let lock = File::open(dir.path())?;
        lock.lock()?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a small file and sees that it reaches the disk.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create_new(self.path().join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Moves the directory to `place`, which must not exist.
    pub(super) fn publish(self, place: &Path) -> io::Result<()> {
        File::open(self.path())?.sync_all()?;
        std::fs::rename(self.path(), place)?;
        // Nothing is left to remove under the old name.
        let _: PathBuf = self.dir.keep();
        sync_parent(place)
    }
}

/// Makes a change of names in the directory of `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes what crashed processes left in `tmp`. The caller holds the store's lock.
pub(super) fn sweep(tmp: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(tmp)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            std::fs::remove_file(entry.path())?;
            continue;
        }
        let Ok(lock) = File::open(entry.path()) else { continue };
        // Locked: another process is at work in it.
        if lock.try_lock().is_ok() {
            tracing::info!(path = %entry.path().display(), "removing what an interrupted pull left");
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
