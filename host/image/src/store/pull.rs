//! From a registry into the store.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt;
use thiserror::Error;
use tokio::sync::mpsc;

use super::convert::{self, Layers};
use super::{Image, LookupError, Store, StoreError};
use crate::Limits;
use crate::credentials::Keychain;
use crate::error::ContentError;
use crate::hosts;
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::registry::{Registry, RegistryError};
use crate::verify::{self, Layer};

/// Layers fetched at a time, as Docker does.
const DOWNLOADS: usize = 3;

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Directory of registry hosts, see [`hosts`](crate::hosts).
    pub registry_config: PathBuf,
    /// Who asks.
    pub keychain: Keychain,
    /// What an image may ask of this host.
    pub limits: Limits,
}

impl Default for PullOptions {
    /// `$HUSK_REGISTRY_CONFIG_DIR`, else `/etc/husk/certs.d`, and the user's credentials.
    fn default() -> Self {
        Self { registry_config: hosts::default_dir(), keychain: Keychain::of_user(), limits: Limits::default() }
    }
}

/// An image that could not be pulled. Nothing of it is left in the store.
#[derive(Debug, Error)]
pub enum PullError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The image.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image, once it was there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The pull was cut off from within.
    #[error("pulling {0} was interrupted: try again")]
    Interrupted(String),
}

impl Store {
    /// Fetches an image. One that is here already is only named anew; a name with a digest that is
    /// here needs no registry.
    ///
    /// # Errors
    /// [`PullError`]; the store is then as it was.
    pub async fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Image, PullError> {
        let name = reference.familiar();
        if reference.digest().is_some()
            && let Ok(image) = self.get(&reference.canonical())
        {
            progress.event(Event::Cached { name: &name });
            return Ok(image);
        }
        let registry = Registry::new(reference, options).await?;
        let manifest = registry.manifest().await?;
        if self.has(manifest.config.digest) {
            let lock = self.lock()?;
            self.name(&lock, manifest.config.digest, manifest.digest, reference)?;
            drop(lock);
            progress.event(Event::Cached { name: &name });
            return Ok(self.get(&reference.canonical())?);
        }
        let config = registry.config(manifest.config).await?;
        let documents = verify::documents(&name, manifest, config, &options.limits)?;
        progress.event(Event::Resolved {
            name: &name,
            digest: &documents.digest.to_string(),
            layers: documents.layers.len(),
            bytes: documents.layers.iter().map(|layer| layer.size).sum(),
        });

        let staging = self.staging()?;
        let (sender, receiver) = mpsc::channel(1);
        let blobs = staging.path().to_owned();
        let layers = documents.layers.clone();
        let (id, digest, limits) = (documents.id, documents.digest, options.limits);
        let watch = Arc::clone(&progress);
        // Layers are merged in order while later ones still arrive.
        let conversion = tokio::task::spawn_blocking(move || {
            let mut layers = Downloaded { receiver, image: documents.image.clone() };
            convert::convert(&staging, &documents, &mut layers, &limits, watch.as_ref()).map(|()| staging)
        });
        let fetched = fetch(&registry, &layers, &blobs, progress.as_ref(), sender).await;
        let converted = conversion.await.map_err(|_| PullError::Interrupted(name.clone()))?;
        // The converter only waits for what did not come: why it did not come says more.
        fetched?;
        let staging = converted?;
        self.publish(staging, id, digest, std::slice::from_ref(reference))?;
        progress.event(Event::Finished { name: &name });
        Ok(self.get(&reference.canonical())?)
    }
}

/// Fetches layers, a few at a time, and hands them on in order.
async fn fetch(
    registry: &Registry,
    layers: &[Layer],
    dir: &std::path::Path,
    progress: &dyn Progress,
    sender: mpsc::Sender<File>,
) -> Result<(), RegistryError> {
    let downloads = layers.iter().map(|layer| registry.layer(layer, dir, progress));
    let mut arriving = futures::stream::iter(downloads).buffered(DOWNLOADS);
    while let Some(blob) = arriving.next().await {
        // The converter refused a layer and is gone: no use in the others.
        if sender.send(blob?).await.is_err() {
            break;
        }
    }
    Ok(())
}

struct Downloaded {
    receiver: mpsc::Receiver<File>,
    image: String,
}

impl Layers for Downloaded {
    type Error = PullError;

    fn open(&mut self, _: usize, _: &Layer) -> Result<(Box<dyn Read + '_>, bool), PullError> {
        let mut blob = self.receiver.blocking_recv().ok_or_else(|| PullError::Interrupted(self.image.clone()))?;
        blob.rewind().map_err(|cause| ContentError::Host {
            image: self.image.clone(),
            what: "reading a layer back",
            cause,
        })?;
        Ok((Box::new(blob), true))
    }
}
