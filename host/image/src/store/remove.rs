//! Images that go: by name, or all at once.
//!
//! An image that is in use (its `image.erofs` is locked by who uses it, at the latest by the VMM) is not deleted. Either
//! the removal is refused, which suits people, or the image is *retired*, which suits Kubernetes: it has no name any more
//! and is not listed, and it goes when its last user has gone.

use std::fs::File;
use std::io;

use thiserror::Error;

use super::journal::Change;
use super::staging::{Staging, sync_parent};
use super::{ImageId, LookupError, Store, StoreError, StoreLock};
use crate::digest::Digest;

/// An empty file in the directory of an image that is retired.
const RETIRED: &str = "retired";

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Canonical names that mean nothing any more.
    pub untagged: Vec<String>,
    /// The image, if it went with its last name.
    pub deleted: Option<ImageId>,
}

/// An image that is not removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// There is no such image.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A pod runs from it.
    #[error("image {id} ({names}) is in use: stop and remove the pods that run from it first")]
    InUse {
        /// The image.
        id: ImageId,
        /// Its names.
        names: String,
    },
    /// An id was given and the image has several names.
    #[error("image {id} has several names ({names}): remove them one by one, or all with --force")]
    SeveralNames {
        /// The image.
        id: ImageId,
        /// Its names.
        names: String,
    },
}

impl From<StoreError> for RemoveError {
    fn from(error: StoreError) -> Self {
        Self::Lookup(error.into())
    }
}

impl Store {
    /// Takes a name away, and the image with its last one; by id, the image with its only name.
    /// `force` takes all names of an id.
    ///
    /// # Errors
    /// [`RemoveError`]; an image that is in use stays, forced or not.
    pub fn remove(&self, name_or_id: &str, force: bool) -> Result<Removed, RemoveError> {
        let lock = self.lock()?;
        let mut names = self.names()?;
        let (id, name) = self.find(&names, name_or_id)?;
        let all = names.of(id);
        if let Some(name) = name.filter(|_| all.len() > 1) {
            names.names.remove(&name);
            self.write_names(&lock, &names)?;
            return Ok(Removed { untagged: vec![name], deleted: None });
        }
        let shown = || all.iter().map(|name| crate::reference::familiar(name)).collect::<Vec<_>>().join(", ");
        if all.len() > 1 && !force {
            return Err(RemoveError::SeveralNames { id: ImageId(id), names: shown() });
        }
        if !self.delete_unused(&lock, id)? {
            return Err(RemoveError::InUse { id: ImageId(id), names: shown() });
        }
        self.sweep_layers(&lock)?;
        Ok(Removed { untagged: all, deleted: Some(ImageId(id)) })
    }

    /// Takes all names of an image away, whichever it is called by, and the image with them. One that is in use is found
    /// by [`Store::running`] alone from now on, and goes with the first [`Store::sweep`] after its last user; fetching it
    /// again in the meantime brings it back.
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn retire(&self, name_or_id: &str) -> Result<Removed, LookupError> {
        let lock = self.lock()?;
        let names = self.names()?;
        let (id, _) = self.find(&names, name_or_id)?;
        let untagged = names.of(id);
        if self.delete_unused(&lock, id)? {
            self.sweep_layers(&lock)?;
            return Ok(Removed { untagged, deleted: Some(ImageId(id)) });
        }
        self.change(&lock, &Change::Retire { id })?;
        Ok(Removed { untagged, deleted: None })
    }

    /// Deletes images that were retired and that nobody uses any more, and says which.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn sweep(&self) -> Result<Vec<ImageId>, StoreError> {
        if !self.ids()?.into_iter().any(|id| self.is_retired(id)) {
            return Ok(Vec::new());
        }
        let lock = self.lock()?;
        let gone = self.sweep_retired(&lock)?;
        if !gone.is_empty() {
            self.sweep_layers(&lock)?;
        }
        Ok(gone)
    }

    pub(super) fn sweep_retired(&self, lock: &StoreLock) -> Result<Vec<ImageId>, StoreError> {
        let mut gone = Vec::new();
        for id in self.ids()? {
            if self.is_retired(id) && self.delete_unused(lock, id)? {
                gone.push(ImageId(id));
            }
        }
        Ok(gone)
    }

    /// Deletes an image and its names unless somebody uses it.
    fn delete_unused(&self, lock: &StoreLock, id: Digest) -> Result<bool, StoreError> {
        let disk = File::open(self.dir(id).join("image.erofs"));
        // One without a disk is damaged, and of no use to anyone.
        if disk.as_ref().is_ok_and(|disk| disk.try_lock().is_err()) {
            return Ok(false);
        }
        self.change(lock, &Change::Remove { id })?;
        Ok(true)
    }

    pub(super) fn is_retired(&self, id: Digest) -> bool {
        self.dir(id).join(RETIRED).exists()
    }

    pub(super) fn mark_retired(&self, _lock: &StoreLock, id: Digest) -> Result<(), StoreError> {
        let mark = self.dir(id).join(RETIRED);
        File::create(&mark).and_then(|_| sync_parent(&mark)).map_err(self.failed("retiring an image"))
    }

    /// It is wanted again.
    pub(super) fn unretire(&self, _lock: &StoreLock, id: Digest) -> Result<(), StoreError> {
        match std::fs::remove_file(self.dir(id).join(RETIRED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("taking an image back")(error)),
            _ => Ok(()),
        }
    }

    /// Takes an image's directory out of the store in one step, then deletes it. One that is not
    /// there needs nothing.
    pub(super) fn bury(&self, _lock: &StoreLock, id: Digest) -> Result<(), StoreError> {
        let failed = self.failed("removing an image");
        let grave = Staging::new_in(&self.tmp()).map_err(&failed)?;
        match std::fs::rename(self.dir(id), grave.path().join("image")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}
