//! The images on this host.
//!
//! ```text
//! ROOT/lock                    flock: held for every change of what follows
//! ROOT/names.json              names and the images they mean
//! ROOT/journal.json            a change that takes several steps, while it is made
//! ROOT/tmp/                    images and layers in the making
//! ROOT/layers/<64 hex digits>/ one layer, by its diff_id (see `layer::Stored`)
//!     data                     blocks of its files; flocked (shared) by who makes an image of it
//!     rest.zst                 the rest of its tar stream
//! ROOT/<64 hex digits>/        one image, by its config's digest
//!     image.erofs              its root file system, without the blocks of files: these are the layers' data.
//!                              Flocked (shared) by whoever uses the image
//!     config.json              the OCI image configuration, verbatim
//!     manifest.json            the manifest it came by, verbatim
//!     passwd, group            of the image, for looking up users
//! ```
//!
//! The disk of an image is `image.erofs` and then the data of its layers, one after the other: the VMM makes one disk of
//! these files. So what images share is stored once, and each layer is converted once, without knowing of the others.
//!
//! Layers and images appear by one rename and are never changed afterwards. At every moment a crash leaves the old or
//! the new state; what is in `tmp` and not locked, and a layer that no image has and nobody holds, is a leftover and goes
//! when a store is next opened.

mod assemble;
mod check;
mod convert;
mod history;
mod image;
mod journal;
mod layers;
mod load;
mod lookup;
mod names;
mod prune;
mod pull;
mod save;
mod staging;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use check::CheckError;
pub use history::Step;
pub use image::{Image, ImageId, Lease, LeaseError};
pub use load::{ArchiveSource, LoadError};
pub use lookup::LookupError;
pub use prune::{PruneOptions, Pruned};
pub use pull::{PullError, PullOptions};
pub use save::SaveError;

use crate::digest::Digest;
use crate::reference::Reference;
use journal::Change;
use names::{Named, Names};
use staging::Staging;

/// The store below one directory. Cheap to clone; every process opens its own.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// One line of `husk images`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// The image.
    pub id: ImageId,
    /// Canonical names, sorted; none when the image lost its last name.
    pub names: Vec<String>,
    /// Digest of the manifest it came by.
    pub digest: String,
    /// Bytes that the files of its disk take, those that it shares with other images included.
    pub size: u64,
    /// When it was built, RFC 3339, if its config says.
    pub created: Option<String>,
    /// Whether it is kept from being pruned.
    pub pinned: bool,
}

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Canonical names that mean nothing any more.
    pub untagged: Vec<String>,
    /// The image, if it went with its last name.
    pub deleted: Option<ImageId>,
}

/// The store itself does not work.
#[derive(Debug, Error)]
#[error("image store {path}: {what} failed: {cause}; see that the directory is yours to write and its disk has room")]
pub struct StoreError {
    path: PathBuf,
    what: &'static str,
    cause: io::Error,
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
    /// Opens the store below `root`, making it if it is not there, and removes what interrupted
    /// pulls left.
    ///
    /// # Errors
    /// When the directory cannot be made or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into() };
        for dir in [store.tmp(), store.layers()] {
            std::fs::create_dir_all(dir).map_err(store.failed("making its directory"))?;
        }
        let lock = store.lock()?;
        staging::sweep(&store.tmp()).map_err(store.failed("removing leftovers"))?;
        store.sweep_layers(&lock)?;
        drop(lock);
        Ok(store)
    }

    /// The directory it lies in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All images: those with names by name, then the nameless by id.
    ///
    /// # Errors
    /// When the store cannot be read; a damaged image is listed without its creation time.
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let names = self.names()?;
        let mut images = Vec::new();
        for id in self.ids()? {
            let dir = self.dir(id);
            let Ok(size) = self.size(id) else { continue };
            let created = image::read_config(&dir).ok().and_then(|config| config.created().clone());
            let digest = std::fs::read(dir.join("manifest.json")).map(|bytes| Digest::of(&bytes).to_string());
            images.push(ImageSummary {
                id: ImageId(id),
                names: names.of(id),
                digest: digest.unwrap_or_default(),
                size,
                created,
                pinned: self.is_pinned(id),
            });
        }
        images.sort_by_key(|image| (image.names.is_empty(), image.names.first().cloned(), image.id));
        Ok(images)
    }

    /// The image of a name, an id, or the beginning of an id.
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn get(&self, name_or_id: &str) -> Result<Image, LookupError> {
        let names = self.names()?;
        let (id, _) = self.find(&names, name_or_id)?;
        self.image(id, &names)
    }

    /// Gives an image one more name; another image that had it loses it.
    ///
    /// # Errors
    /// When the image is not there or the names cannot be written.
    pub fn tag(&self, id: &ImageId, reference: &Reference) -> Result<(), LookupError> {
        let digest = std::fs::read(self.dir(id.0).join("manifest.json"))
            .map(|bytes| Digest::of(&bytes))
            .map_err(|_| LookupError::Unknown(id.to_string()))?;
        if self.name(id.0, digest, std::slice::from_ref(reference))? {
            return Ok(());
        }
        Err(LookupError::Unknown(id.to_string()))
    }

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
        let disk = File::open(self.dir(id).join("image.erofs"));
        if disk.as_ref().is_ok_and(|disk| disk.try_lock().is_err()) {
            return Err(RemoveError::InUse { id: ImageId(id), names: shown() });
        }
        self.change(&lock, &Change::Remove { id })?;
        self.sweep_layers(&lock)?;
        Ok(Removed { untagged: all, deleted: Some(ImageId(id)) })
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn dir(&self, id: Digest) -> PathBuf {
        self.root.join(id.hex())
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> StoreError + use<> {
        let path = self.root.clone();
        move |cause| StoreError { path: path.clone(), what, cause }
    }

    fn journal(&self) -> PathBuf {
        self.root.join("journal.json")
    }

    /// Waits for the store's lock, and finishes what its last holder may have left. Held for renames and small writes
    /// only.
    fn lock(&self) -> Result<StoreLock, StoreError> {
        let failed = self.failed("locking it");
        let file = File::create(self.root.join("lock")).map_err(&failed)?;
        file.lock().map_err(failed)?;
        let lock = StoreLock { _file: file };
        if let Some(change) = journal::read(&self.journal()).map_err(self.failed("reading journal.json"))? {
            tracing::info!(?change, "finishing what was interrupted");
            self.finish(&lock, &change)?;
        }
        Ok(lock)
    }

    /// Makes a change of several steps.
    fn change(&self, lock: &StoreLock, change: &Change) -> Result<(), StoreError> {
        journal::begin(&self.journal(), &self.tmp(), change).map_err(self.failed("writing journal.json"))?;
        self.finish(lock, change)
    }

    fn finish(&self, lock: &StoreLock, change: &Change) -> Result<(), StoreError> {
        let mut names = self.names()?;
        match change {
            Change::Publish { id, digest, names: new } if self.has(*id) => {
                let named = Named { id: *id, digest: *digest };
                names.names.extend(new.iter().map(|name| (name.clone(), named)));
                self.write_names(lock, &names)?;
            }
            // It did not get that far.
            Change::Publish { .. } => {}
            Change::Remove { id } => {
                names.names.retain(|_, named| named.id != *id);
                self.write_names(lock, &names)?;
                self.bury(lock, *id)?;
            }
        }
        journal::end(&self.journal()).map_err(self.failed("removing journal.json"))
    }

    fn names(&self) -> Result<Names, StoreError> {
        Names::read(&self.root.join("names.json")).map_err(self.failed("reading names.json"))
    }

    fn write_names(&self, _lock: &StoreLock, names: &Names) -> Result<(), StoreError> {
        names.write(&self.root.join("names.json"), &self.tmp()).map_err(self.failed("writing names.json"))
    }

    /// Gives an image names, if it is here.
    fn name(&self, id: Digest, digest: Digest, references: &[Reference]) -> Result<bool, StoreError> {
        let lock = self.lock()?;
        // Whoever found it before may have been overtaken by who removed it.
        if !self.has(id) {
            return Ok(false);
        }
        let mut names = self.names()?;
        let before = names.names.clone();
        names.names.extend(references.iter().map(|reference| (reference.canonical(), Named { id, digest })));
        if names.names != before {
            self.write_names(&lock, &names)?;
        }
        Ok(true)
    }

    fn ids(&self) -> Result<Vec<Digest>, StoreError> {
        let failed = self.failed("listing it");
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            ids.extend(name.to_str().and_then(Digest::from_hex));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn size(&self, id: Digest) -> io::Result<u64> {
        let own = self.dir(id).join("image.erofs");
        let layers = image::data(&self.layers(), &own)?;
        let sizes = std::iter::once(own).chain(layers).map(|path| Ok(std::fs::metadata(path)?.blocks() * 512));
        sizes.sum()
    }

    fn has(&self, id: Digest) -> bool {
        self.dir(id).join("image.erofs").exists()
    }

    fn image(&self, id: Digest, names: &Names) -> Result<Image, LookupError> {
        Image::read(self.dir(id), &self.layers(), ImageId(id), names.of(id))
    }

    fn staging(&self) -> Result<Staging, StoreError> {
        let _lock = self.lock()?;
        Staging::new_in(&self.tmp()).map_err(self.failed("making room for an image"))
    }

    /// Takes an image's directory out of the store in one step, then deletes it. One that is not
    /// there needs nothing.
    fn bury(&self, _lock: &StoreLock, id: Digest) -> Result<(), StoreError> {
        let failed = self.failed("removing an image");
        let grave = Staging::new_in(&self.tmp()).map_err(&failed)?;
        match std::fs::rename(self.dir(id), grave.path().join("image")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Puts a finished image in its place and gives it its names. When another process was faster,
    /// its copy is as good as ours.
    fn publish(&self, staging: Staging, id: Digest, digest: Digest, names: &[Reference]) -> Result<(), StoreError> {
        let lock = self.lock()?;
        let change = Change::Publish { id, digest, names: names.iter().map(Reference::canonical).collect() };
        journal::begin(&self.journal(), &self.tmp(), &change).map_err(self.failed("writing journal.json"))?;
        if !self.has(id) {
            // What is left of a damaged image of that id makes way.
            self.bury(&lock, id)?;
            staging.publish(&self.dir(id)).map_err(self.failed("putting an image in its place"))?;
        }
        self.finish(&lock, &change)
    }
}

/// Proof that the store's lock is held.
#[derive(Debug)]
struct StoreLock {
    _file: File,
}
