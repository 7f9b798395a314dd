//! What images there are.
//!
//! kubelet asks this often, and an image never changes once it is in its place. So what its files say is read once and
//! kept as long as its directory is the same; names and marks, which any process may change, are looked up each time.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci_spec::image::ImageManifest;

use super::names::Names;
use super::{ImageId, LookupError, Store, StoreError, image};
use crate::digest::Digest;

/// One line of `husk images`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// The image.
    pub id: ImageId,
    /// Canonical names, sorted; none when the image lost its last name.
    pub names: Vec<String>,
    /// Names by digest, sorted: `docker.io/library/nginx@sha256:…` for each repository that it was fetched from.
    pub digests: Vec<String>,
    /// Digest of the manifest it came by.
    pub digest: String,
    /// Bytes that the files of its disk take, those that it shares with other images included.
    pub size: u64,
    /// When it was built, RFC 3339, if its config says.
    pub created: Option<String>,
    /// `USER[:GROUP]` of its config; empty: none is named.
    pub user: String,
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is kept from being pruned.
    pub pinned: bool,
}

/// What the files of an image say.
#[derive(Debug)]
struct Facts {
    digest: String,
    size: u64,
    created: Option<String>,
    user: String,
    annotations: BTreeMap<String, String>,
}

/// Tells a directory from another that later has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

/// Facts that were read before.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<Mutex<Read>>);

type Read = HashMap<Digest, (Stamp, Arc<Facts>)>;

impl Known {
    fn lock(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    fn of(dir: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(dir)?;
        Ok(Self { device: found.dev(), inode: found.ino(), changed: (found.ctime(), found.ctime_nsec()) })
    }
}

impl Store {
    /// All images: those with names by name, then the nameless by id.
    ///
    /// # Errors
    /// When the store cannot be read; a damaged image is listed without what cannot be read, or not at all.
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let names = self.names()?;
        let ids = self.ids()?;
        let listed = ids.iter().filter(|id| !self.is_retired(**id));
        let mut images: Vec<_> = listed.filter_map(|id| self.summarize(*id, &names).ok()).collect();
        self.known.lock().retain(|id, _| ids.binary_search(id).is_ok());
        images.sort_by_key(|image| (image.names.is_empty(), image.names.first().cloned(), image.id));
        Ok(images)
    }

    /// What [`list`](Self::list) says of one image.
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn summary(&self, name_or_id: &str) -> Result<ImageSummary, LookupError> {
        let names = self.names()?;
        let (id, _) = self.find(&names, name_or_id)?;
        self.summarize(id, &names).map_err(|cause| LookupError::Damaged { id: ImageId(id), what: "image.erofs", cause })
    }

    fn summarize(&self, id: Digest, names: &Names) -> io::Result<ImageSummary> {
        let facts = self.facts(id)?;
        Ok(ImageSummary {
            id: ImageId(id),
            names: names.of(id),
            digests: names.digests_of(id),
            digest: facts.digest.clone(),
            size: facts.size,
            created: facts.created.clone(),
            user: facts.user.clone(),
            annotations: facts.annotations.clone(),
            pinned: self.is_pinned(id),
        })
    }

    fn facts(&self, id: Digest) -> io::Result<Arc<Facts>> {
        let stamp = Stamp::of(&self.dir(id))?;
        if let Some((_, facts)) = self.known.lock().get(&id).filter(|(then, _)| *then == stamp) {
            return Ok(Arc::clone(facts));
        }
        let facts = Arc::new(self.read_facts(id)?);
        self.known.lock().insert(id, (stamp, Arc::clone(&facts)));
        Ok(facts)
    }

    fn read_facts(&self, id: Digest) -> io::Result<Facts> {
        let dir = self.dir(id);
        let own = dir.join("image.erofs");
        let data = image::data(&self.layers(), &own)?;
        let sizes = std::iter::once(own).chain(data).map(|path| Ok(std::fs::metadata(path)?.blocks() * 512));
        let size = sizes.sum::<io::Result<u64>>()?;
        let config = image::read_config(&dir).ok();
        let user = config.as_ref().and_then(|config| config.config().as_ref()?.user().clone());
        let manifest = std::fs::read(dir.join("manifest.json")).ok();
        let parsed = manifest.as_ref().and_then(|bytes| serde_json::from_slice::<ImageManifest>(bytes).ok());
        let annotations = parsed.and_then(|manifest| manifest.annotations().clone()).unwrap_or_default();
        Ok(Facts {
            digest: manifest.map(|bytes| Digest::of(&bytes).to_string()).unwrap_or_default(),
            size,
            created: config.and_then(|config| config.created().clone()),
            user: user.unwrap_or_default(),
            annotations: annotations.into_iter().collect(),
        })
    }
}
