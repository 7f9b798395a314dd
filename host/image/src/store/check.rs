//! Whether an image is still what it was when it came.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use thiserror::Error;

use super::save::measure;
use super::{Image, LookupError, Store, StoreError, assemble};
use crate::Limits;
use crate::digest::Digest;
use crate::error::ContentError;
use crate::progress::{Event, Progress};
use crate::verify::{Documents, Layer};

/// An image that is not what it was.
#[derive(Debug, Error)]
pub enum CheckError {
    /// It cannot be found, or misses files.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The store itself does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be made anew from its layers.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A file has other bytes than it had.
    #[error(
        "image {image} in the store was changed: {what} is not what it was; remove the image with `husk rmi --force {image}` and fetch it again"
    )]
    Changed { image: String, what: String },
}

impl Store {
    /// Reads all that the store has of an image: its config against its id, each layer against its `diff_id`, and the rest
    /// against what is made of the layers anew.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn check(&self, image: &Image, progress: &dyn Progress) -> Result<(), CheckError> {
        let id = image.id.0;
        let changed = |what: &str| CheckError::Changed { image: image.id.to_string(), what: what.to_owned() };
        let damaged = |what| move |cause| LookupError::Damaged { id: image.id, what, cause };
        let read = |name| std::fs::read(self.dir(id).join(name)).map_err(damaged(name));
        let (config, manifest) = (read("config.json")?, read("manifest.json")?);
        if Digest::of(&config) != id {
            return Err(changed("its config"));
        }
        let diff_ids = self.layers_of(id).map_err(damaged("config.json"))?;
        let mut held = Vec::with_capacity(diff_ids.len());
        for (index, diff_id) in diff_ids.iter().enumerate() {
            let missing = || damaged("its layers")(io::ErrorKind::NotFound.into());
            let layer = self.hold_layer(*diff_id)?.ok_or_else(missing)?;
            measure(&layer).map_err(|_| changed(&format!("layer {diff_id}")))?;
            progress.event(Event::Applied { digest: &diff_id.to_string(), index, layers: diff_ids.len() });
            held.push(layer);
        }
        let layer = |diff_id: &Digest| Layer { digest: *diff_id, blob: false, size: 0, diff_id: *diff_id };
        let documents = Documents {
            image: image.id.short(),
            digest: Digest::of(&manifest),
            manifest,
            config,
            id,
            layers: diff_ids.iter().map(layer).collect(),
        };
        let staging = self.staging()?;
        assemble::assemble(&staging, &documents, &held, &Limits::default(), progress)?;
        for entry in std::fs::read_dir(staging.path()).map_err(damaged("a copy of it"))? {
            let entry = entry.map_err(damaged("a copy of it"))?;
            let name = entry.file_name();
            if !same(&entry.path(), &self.dir(id).join(&name)).map_err(damaged("its files"))? {
                return Err(changed(&name.to_string_lossy()));
            }
        }
        Ok(())
    }
}

/// Whether two files have the same bytes.
fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&mut one).take(1 << 20).read_to_end(&mut left)?;
        (&mut other).take(1 << 20).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
