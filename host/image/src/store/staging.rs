//! Where something is made before it is in the store: a directory in the store's `tmp`, locked by the process that works
//! in it, so that another process can tell a live one from a leftover.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A directory that vanishes unless it is moved into place.
#[derive(Debug)]
pub(super) struct Staging {
    /// `None` once it was moved.
    dir: Option<PathBuf>,
    path: PathBuf,
    _lock: File,
}

/// Who works in a directory of that name.
#[derive(Debug)]
pub(super) enum Claim {
    Ours(Staging),
    /// Somebody else: locking the file waits until that is over.
    Theirs(File),
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take()
            && let Err(error) = std::fs::remove_dir_all(&dir)
        {
            tracing::debug!(path = %dir.display(), %error, "not removed; the next start of the store will");
        }
    }
}

impl Staging {
    /// Makes one under a name of its own. The caller holds the store's lock, so no sweep can come between making the
    /// directory and locking it.
    pub(super) fn new_in(tmp: &Path) -> io::Result<Self> {
        let path = tempfile::Builder::new().prefix("image-").tempdir_in(tmp)?.keep();
        let lock = File::open(&path)?;
        lock.lock()?;
        Ok(Self { dir: Some(path.clone()), path, _lock: lock })
    }

    /// Makes one of this name, or says who does. The caller holds the store's lock.
    pub(super) fn claim(tmp: &Path, name: &str) -> io::Result<Claim> {
        let path = tmp.join(name);
        for _ in 0..16 {
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                made => {
                    let lock = match File::open(&path) {
                        // Its maker removed it just now.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        opened => opened?,
                    };
                    match (lock.try_lock(), made) {
                        (Ok(()), Ok(())) => {
                            return Ok(Claim::Ours(Self { dir: Some(path.clone()), path, _lock: lock }));
                        }
                        // Left by a crash.
                        (Ok(()), Err(_)) => remove(&path)?,
                        (Err(std::fs::TryLockError::WouldBlock), _) => return Ok(Claim::Theirs(lock)),
                        (Err(std::fs::TryLockError::Error(error)), _) => return Err(error),
                    }
                }
            }
        }
        Err(io::Error::other("a leftover does not go"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a small file and sees that it reaches the disk.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create_new(self.path().join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Moves the directory to `place`, which must not exist.
    pub(super) fn publish(mut self, place: &Path) -> io::Result<()> {
        File::open(self.path())?.sync_all()?;
        std::fs::rename(self.path(), place)?;
        // Nothing is left to remove under the old name.
        self.dir = None;
        sync_parent(place)
    }
}

/// A shared lock on the file at `path`, which whoever wants to remove it asks for. `None` when it was just removed.
pub(super) fn hold(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock_shared() {
        Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
        locked => locked?,
    }
    // Between opening and locking it may have been moved away to be deleted.
    let named = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        named => named?,
    };
    let opened = file.metadata()?;
    Ok((opened.ino() == named.ino() && opened.dev() == named.dev()).then_some(file))
}

/// Makes a change of names in the directory of `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes a leftover, which may be gone: whoever makes something gives it up without the store's lock.
fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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
            tracing::info!(path = %entry.path().display(), "removing what was interrupted");
            remove(&entry.path())?;
        }
    }
    Ok(())
}
