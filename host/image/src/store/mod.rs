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
//!     pinned                   empty: never pruned
//!     retired                  empty: removed while it was in use; found by nobody who does not use it
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
mod list;
mod load;
mod lookup;
mod names;
mod prune;
mod pull;
mod remove;
mod save;
mod staging;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use check::CheckError;
pub use history::Step;
pub use image::{Image, ImageId, Lease, LeaseError};
pub use list::ImageSummary;
pub use load::{ArchiveSource, LoadError};
pub use lookup::LookupError;
pub use prune::{PruneOptions, Pruned, Usage};
pub use pull::{PullError, PullOptions};
pub use remove::{RemoveError, Removed};
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
    known: list::Known,
}

/// The store itself does not work.
#[derive(Debug, Error)]
#[error("image store {path}: {what} failed: {cause}; see that the directory is yours to write and its disk has room")]
pub struct StoreError {
    path: PathBuf,
    what: &'static str,
    cause: io::Error,
}

impl Store {
    /// Opens the store below `root`, making it if it is not there, and removes what interrupted
    /// pulls left.
    ///
    /// # Errors
    /// When the directory cannot be made or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into(), known: list::Known::default() };
        for dir in [store.tmp(), store.layers()] {
            std::fs::create_dir_all(dir).map_err(store.failed("making its directory"))?;
        }
        let lock = store.lock()?;
        staging::sweep(&store.tmp()).map_err(store.failed("removing leftovers"))?;
        store.sweep_retired(&lock)?;
        store.sweep_layers(&lock)?;
        drop(lock);
        Ok(store)
    }

    /// The directory it lies in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
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

    /// The image that something runs from, by its whole id: also one that was [retired](Self::retire) meanwhile.
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn running(&self, id: &str) -> Result<Image, LookupError> {
        let known = id.parse().ok().filter(|id| self.has(*id));
        self.image(known.ok_or_else(|| LookupError::Unknown(id.to_owned()))?, &self.names()?)
    }

    /// Gives an image one more name; another image that had it loses it.
    ///
    /// # Errors
    /// When the image is not there or the names cannot be written.
    pub fn tag(&self, id: &ImageId, reference: &Reference) -> Result<(), LookupError> {
        let digest = std::fs::read(self.dir(id.0).join("manifest.json"))
            .map(|bytes| Digest::of(&bytes))
            .map_err(|_| LookupError::Unknown(id.to_string()))?;
        if self.name(Named { id: id.0, digest, index: None }, std::slice::from_ref(reference))? {
            return Ok(());
        }
        Err(LookupError::Unknown(id.to_string()))
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
            Change::Publish { named, names: new } if self.has(named.id) => {
                self.unretire(lock, named.id)?;
                names.names.extend(new.iter().map(|name| (name.clone(), *named)));
                self.write_names(lock, &names)?;
            }
            // It did not get that far.
            Change::Publish { .. } => {}
            Change::Remove { id } => {
                names.names.retain(|_, named| named.id != *id);
                self.write_names(lock, &names)?;
                self.bury(lock, *id)?;
            }
            Change::Retire { id } => {
                self.mark_retired(lock, *id)?;
                names.names.retain(|_, named| named.id != *id);
                self.write_names(lock, &names)?;
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
    fn name(&self, named: Named, references: &[Reference]) -> Result<bool, StoreError> {
        let lock = self.lock()?;
        // Whoever found it before may have been overtaken by who removed it. One that lost a file is made anew.
        if !self.is_whole(named.id) {
            return Ok(false);
        }
        self.unretire(&lock, named.id)?;
        let mut names = self.names()?;
        let before = names.names.clone();
        names.names.extend(references.iter().map(|reference| (reference.canonical(), named)));
        if names.names != before {
            self.write_names(&lock, &names)?;
        }
        Ok(true)
    }

    /// All that are there, also those that are retired.
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

    fn has(&self, id: Digest) -> bool {
        self.dir(id).join("image.erofs").exists()
    }

    /// Whether it has all its files, as far as their lengths tell.
    fn is_whole(&self, id: Digest) -> bool {
        self.image(id, &Names::default()).is_ok()
    }

    fn image(&self, id: Digest, names: &Names) -> Result<Image, LookupError> {
        Image::read(self.dir(id), &self.layers(), ImageId(id), names.of(id))
    }

    fn staging(&self) -> Result<Staging, StoreError> {
        let _lock = self.lock()?;
        Staging::new_in(&self.tmp()).map_err(self.failed("making room for an image"))
    }

    /// Puts a finished image in its place and gives it its names. When another process was faster,
    /// its copy is as good as ours.
    fn publish(&self, staging: Staging, named: Named, names: &[Reference]) -> Result<(), StoreError> {
        let lock = self.lock()?;
        let id = named.id;
        let change = Change::Publish { named, names: names.iter().map(Reference::canonical).collect() };
        journal::begin(&self.journal(), &self.tmp(), &change).map_err(self.failed("writing journal.json"))?;
        if !self.is_whole(id) {
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
