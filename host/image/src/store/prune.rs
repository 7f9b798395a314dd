//! Room: what the store takes, and images that go to make some.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::journal::Change;
use super::{ImageId, Store, StoreError};
use crate::digest::Digest;

/// Which images may go. Those that are pinned or in use never do.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Also those with a name.
    pub named: bool,
    /// Only those that came into the store so long ago or earlier.
    pub older_than: Option<Duration>,
    /// Only as many, the oldest first, as bring the store down to so many bytes.
    pub keep_bytes: Option<u64>,
    /// Images that containers have, running or not.
    pub used: BTreeSet<ImageId>,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The images, and the canonical names that they had.
    pub images: Vec<(ImageId, Vec<String>)>,
    /// Bytes that the disk of the store has more.
    pub bytes: u64,
}

/// What files and directories take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of blocks on the disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl Store {
    /// What all of the store takes on its disk, as `du -s` and `du -s --inodes` count.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        disk_usage(&self.root).map_err(self.failed("counting what it takes"))
    }

    /// Keeps an image from being pruned, or lets it go again. Removing it by name stays possible.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn pin(&self, id: &ImageId, pinned: bool) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let mark = self.dir(id.0).join(PIN);
        let done = if pinned {
            File::create(mark).map(drop)
        } else {
            match std::fs::remove_file(mark) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done,
            }
        };
        done.map_err(self.failed("pinning an image"))
    }

    /// Removes images that nobody needs, and what only they have.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, StoreError> {
        let lock = self.lock()?;
        let before = self.usage()?.bytes;
        let mut left = before;
        let mut pruned = Pruned::default();
        for (_, id) in self.oldest_first()? {
            if options.keep_bytes.is_some_and(|keep| left <= keep) {
                break;
            }
            if !self.may_go(id, options)? {
                continue;
            }
            let names = self.names()?.of(id);
            self.change(&lock, &Change::Remove { id })?;
            self.sweep_layers(&lock)?;
            pruned.images.push((ImageId(id), names));
            left = self.usage()?.bytes;
        }
        pruned.bytes = before.saturating_sub(left);
        Ok(pruned)
    }

    fn may_go(&self, id: Digest, options: &PruneOptions) -> Result<bool, StoreError> {
        let named = !self.names()?.of(id).is_empty();
        if named && !options.named || options.used.contains(&ImageId(id)) || self.is_pinned(id) {
            return Ok(false);
        }
        let since = SystemTime::now().duration_since(self.arrived(id)?).unwrap_or_default();
        if options.older_than.is_some_and(|age| since < age) {
            return Ok(false);
        }
        let disk = File::open(self.dir(id).join("image.erofs"));
        Ok(disk.as_ref().is_ok_and(|disk| disk.try_lock().is_ok()))
    }

    fn oldest_first(&self) -> Result<Vec<(SystemTime, Digest)>, StoreError> {
        let mut images = Vec::new();
        for id in self.ids()? {
            images.push((self.arrived(id)?, id));
        }
        images.sort_unstable();
        Ok(images)
    }

    /// When the image came into the store.
    pub(super) fn arrived(&self, id: Digest) -> Result<SystemTime, StoreError> {
        let metadata = std::fs::metadata(self.dir(id).join("config.json"));
        metadata.and_then(|metadata| metadata.modified()).map_err(self.failed("reading an image's age"))
    }

    pub(super) fn is_pinned(&self, id: Digest) -> bool {
        self.dir(id).join(PIN).exists()
    }

    /// Bytes that a layer takes in the store.
    pub(super) fn layer_bytes(&self, diff_id: Digest) -> io::Result<u64> {
        disk_usage(&self.layers().join(diff_id.hex())).map(|usage| usage.bytes)
    }
}

/// An empty file in the directory of an image that is pinned.
const PIN: &str = "pinned";

/// What a directory and all below it take. What goes while this looks does not count.
fn disk_usage(path: &Path) -> io::Result<Usage> {
    let metadata = std::fs::symlink_metadata(path)?;
    let mut usage = Usage { bytes: metadata.blocks() * 512, inodes: 1 };
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            match disk_usage(&entry?.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                below => {
                    let below = below?;
                    usage = Usage { bytes: usage.bytes + below.bytes, inodes: usage.inodes + below.inodes };
                }
            }
        }
    }
    Ok(usage)
}
