//! From an archive into the store.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::layers::{Held, Wanted};
use super::names::Named;
use super::{Image, LookupError, Store, StoreError, assemble, convert};
use crate::Limits;
use crate::archive::{Archive, ArchiveError, Found};
use crate::error::{BlobProblem, ContentError};
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::verify::{Documents, Layer};

/// Where an archive comes from.
pub enum ArchiveSource {
    /// A file (tar, also gzip or zstd) or a directory (an OCI layout).
    Path(PathBuf),
    /// A stream, for instance standard input; read to its end.
    Reader(Box<dyn Read + Send>),
}

impl std::fmt::Debug for ArchiveSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Reader(_) => f.write_str("Reader"),
        }
    }
}

/// An archive that could not be loaded. Images of it that came before the failing one stay.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An image in it.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image, once it was there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The load was cut off from within.
    #[error("loading was interrupted: try again")]
    Interrupted,
}

impl Store {
    /// Takes every image of an archive, under the names the archive has for it; `name` gives a
    /// single image another one instead.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(
        &self,
        source: ArchiveSource,
        name: Option<&Reference>,
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<Image>, LoadError> {
        let (store, name) = (self.clone(), name.cloned());
        let load = move || store.load_blocking(source, name.as_ref(), progress.as_ref());
        tokio::task::spawn_blocking(load).await.map_err(|_| LoadError::Interrupted)?
    }

    fn load_blocking(
        &self,
        source: ArchiveSource,
        name: Option<&Reference>,
        progress: &dyn Progress,
    ) -> Result<Vec<Image>, LoadError> {
        let limits = Limits::default();
        let archive = match source {
            ArchiveSource::Path(path) => Archive::open(&path, &self.tmp(), &limits)?,
            ArchiveSource::Reader(reader) => Archive::from_reader(reader, &self.tmp(), &limits)?,
        };
        let mut images = archive.images(&limits)?;
        if let Some(name) = name {
            let [only] = images.as_mut_slice() else {
                let error = ArchiveError::SeveralImages { archive: archive.name().to_owned(), count: images.len() };
                return Err(error.into());
            };
            only.names = vec![name.clone()];
            only.documents.image = name.familiar();
        }
        images.into_iter().map(|image| self.load_image(&archive, image, &limits, progress)).collect()
    }

    fn load_image(
        &self,
        archive: &Archive,
        image: Found,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> Result<Image, LoadError> {
        let Found { documents, names, members } = image;
        let name = documents.image.clone();
        let named = Named { id: documents.id, digest: documents.digest, index: None };
        if self.name(named, &names)? {
            progress.event(Event::Cached { name: &name });
            return Ok(self.get(&documents.id.to_string())?);
        }
        progress.event(Event::Resolved {
            name: &name,
            digest: &documents.digest.to_string(),
            layers: documents.layers.len(),
            bytes: documents.layers.iter().map(|layer| layer.size).sum(),
        });
        let layers = self.load_layers(archive, &documents, &members, limits, progress);
        let assembled = layers.and_then(|layers| {
            let staging = self.staging()?;
            assemble::assemble(&staging, &documents, &layers, limits, progress)?;
            self.publish(staging, named, &names)?;
            progress.event(Event::Finished { name: &name });
            Ok(self.get(&documents.id.to_string())?)
        });
        assembled.inspect_err(|_| self.tidy())
    }

    /// The image's layers; those that are not here yet are read where they lie in the archive.
    fn load_layers(
        &self,
        archive: &Archive,
        documents: &Documents,
        members: &[String],
        limits: &Limits,
        progress: &dyn Progress,
    ) -> Result<Vec<Held>, LoadError> {
        let mut held = Vec::with_capacity(documents.layers.len());
        let mut unpacked = 0;
        for (index, (layer, member)) in documents.layers.iter().zip(members).enumerate() {
            let digest = layer.digest.to_string();
            held.push(match self.want_layer(layer.diff_id)? {
                Wanted::Present(held) => held,
                Wanted::Missing(staging) => {
                    let (reader, _) = archive.open_member(member)?;
                    let reader = Watched { reader, progress, digest: digest.clone(), done: 0, total: layer.size };
                    let converted = convert::convert(reader, layer, staging.path(), limits, unpacked);
                    unpacked += converted.map_err(refused(&documents.image, layer))?;
                    self.publish_layer(staging, layer.diff_id)?
                }
            });
            progress.event(Event::Applied { digest: &digest, index, layers: documents.layers.len() });
        }
        Ok(held)
    }
}

/// Says which image and layer a problem is of.
pub(super) fn refused(image: &str, layer: &Layer) -> impl FnOnce(BlobProblem) -> ContentError + use<> {
    let (image, layer) = (image.to_owned(), layer.digest);
    move |problem| ContentError::Layer { image, layer, problem: Box::new(problem) }
}

/// Tells how far reading came.
struct Watched<'a> {
    reader: Box<dyn Read + 'a>,
    progress: &'a dyn Progress,
    digest: String,
    done: u64,
    total: u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.reader.read(buffer)?;
        self.done += got as u64;
        self.progress.event(Event::Layer { digest: &self.digest, done: self.done, total: self.total });
        Ok(got)
    }
}
