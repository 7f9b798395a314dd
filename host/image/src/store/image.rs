//! One image of the store.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use thiserror::Error;

use super::LookupError;
use crate::digest::Digest;
use crate::user::{self, ResolvedUser, UserError};

/// An image's identity: the digest of its config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(pub(crate) Digest);

impl ImageId {
    /// The first 12 digits, as lists show it.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.hex().chars().take(12).collect()
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An image, ready to run from.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its identity.
    pub id: ImageId,
    /// Canonical names, sorted.
    pub names: Vec<String>,
    /// Digest of the manifest it came by.
    pub digest: String,
    /// Its root file system. To use it take a [`Lease`], which is this file, opened.
    pub erofs_path: PathBuf,
    /// Its configuration.
    pub config: ImageConfiguration,
    dir: PathBuf,
}

/// An image in use. It is the disk image itself, opened read-only with a shared lock: as long as
/// this description (or a duplicate, in whatever process) is open, the image cannot be removed.
#[derive(Debug)]
pub struct Lease {
    file: File,
}

/// An image that cannot be used.
#[derive(Debug, Error)]
#[error("image {id} cannot be used: {cause}; it may just have been removed: fetch it again")]
pub struct LeaseError {
    id: ImageId,
    cause: io::Error,
}

impl Lease {
    /// The disk image.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The disk image, to be handed on. The lease lasts until it and its duplicates are closed.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}

pub(super) fn read_config(dir: &Path) -> io::Result<ImageConfiguration> {
    let bytes = std::fs::read(dir.join("config.json"))?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl Image {
    pub(super) fn read(dir: PathBuf, id: ImageId, names: Vec<String>) -> Result<Self, LookupError> {
        let damaged = |what| move |cause| LookupError::Damaged { id, what, cause };
        let config = read_config(&dir).map_err(damaged("config.json"))?;
        let manifest = std::fs::read(dir.join("manifest.json")).map_err(damaged("manifest.json"))?;
        let digest = Digest::of(&manifest).to_string();
        Ok(Self { id, names, digest, erofs_path: dir.join("image.erofs"), config, dir })
    }

    /// Opens the disk image and keeps it from being removed.
    ///
    /// # Errors
    /// When it was removed meanwhile.
    pub fn lease(&self) -> Result<Lease, LeaseError> {
        let failed = |cause| LeaseError { id: self.id, cause };
        let file = File::open(&self.erofs_path).map_err(failed)?;
        file.try_lock_shared().map_err(|error| failed(error.into()))?;
        // Between opening and locking it may have been moved away to be deleted.
        let (opened, named) = (file.metadata(), std::fs::metadata(&self.erofs_path));
        match (opened.map_err(failed)?, named.map_err(failed)?) {
            (opened, named) if opened.ino() == named.ino() && opened.dev() == named.dev() => Ok(Lease { file }),
            _ => Err(failed(io::ErrorKind::NotFound.into())),
        }
    }

    /// The user of `USER[:GROUP]`, names or numbers, in this image; empty is uid 0.
    ///
    /// # Errors
    /// [`UserError`].
    pub fn resolve_user(&self, spec: &str) -> Result<ResolvedUser, UserError> {
        user::resolve(spec, &self.table("passwd"), &self.table("group"))
    }

    /// The name of a user id in this image.
    #[must_use]
    pub fn user_name(&self, uid: u32) -> Option<String> {
        user::user_name(uid, &self.table("passwd"))
    }

    /// The name of a group id in this image.
    #[must_use]
    pub fn group_name(&self, gid: u32) -> Option<String> {
        user::group_name(gid, &self.table("group"))
    }

    /// An image without such a file has no names, only numbers.
    fn table(&self, name: &str) -> String {
        let bytes = std::fs::read(self.dir.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
