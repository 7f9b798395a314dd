//! One image of the store.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use thiserror::Error;

use super::LookupError;
use super::staging::hold;
use crate::digest::Digest;
use crate::erofs;
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
    /// The beginning of its root file system's disk. To use it take a [`Lease`].
    pub erofs_path: PathBuf,
    /// The files that the disk continues in, in their order, each to its end.
    pub data_paths: Vec<PathBuf>,
    /// Its configuration.
    pub config: ImageConfiguration,
    dir: PathBuf,
}

/// An image in use: the beginning of its disk, opened read-only with a shared lock. As long as it lives, the image cannot
/// be removed.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

/// An image that cannot be used.
#[derive(Debug, Error)]
#[error("image {id} cannot be used: {cause}; it may just have been removed: fetch it again")]
pub struct LeaseError {
    id: ImageId,
    cause: io::Error,
}

/// The files that the disk that begins with `erofs` continues in; they are as long as it says.
pub(super) fn data(layers: &Path, erofs: &Path) -> io::Result<Vec<PathBuf>> {
    let damaged = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let devices = erofs::read_devices(&File::open(erofs)?).map_err(|error| damaged(error.to_string()))?;
    let mut paths = Vec::with_capacity(devices.len());
    for device in devices {
        let path = layers.join(device.tag.hex()).join("data");
        let len = std::fs::metadata(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("layer {}: {error}", device.tag)))?
            .len();
        if len != u64::from(device.blocks) * erofs::BLOCK {
            return Err(damaged(format!("layer {} has {len} bytes of data", device.tag)));
        }
        paths.push(path);
    }
    Ok(paths)
}

pub(super) fn read_config(dir: &Path) -> io::Result<ImageConfiguration> {
    let bytes = std::fs::read(dir.join("config.json"))?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl Image {
    pub(super) fn read(dir: PathBuf, layers: &Path, id: ImageId, names: Vec<String>) -> Result<Self, LookupError> {
        let damaged = |what| move |cause| LookupError::Damaged { id, what, cause };
        let config = read_config(&dir).map_err(damaged("config.json"))?;
        let manifest = std::fs::read(dir.join("manifest.json")).map_err(damaged("manifest.json"))?;
        let digest = Digest::of(&manifest).to_string();
        let erofs_path = dir.join("image.erofs");
        let data_paths = data(layers, &erofs_path).map_err(damaged("image.erofs"))?;
        Ok(Self { id, names, digest, erofs_path, data_paths, config, dir })
    }

    /// Opens the image and keeps it and its layers from being removed.
    ///
    /// # Errors
    /// When it was removed meanwhile.
    pub fn lease(&self) -> Result<Lease, LeaseError> {
        let failed = |cause| LeaseError { id: self.id, cause };
        let held = hold(&self.erofs_path).map_err(failed)?;
        held.map(|file| Lease { _file: file }).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
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
