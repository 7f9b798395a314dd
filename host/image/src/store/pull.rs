//! From a registry into the store.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use thiserror::Error;
use tokio::sync::mpsc;

use super::layers::{Held, Wanted};
use super::load::refused;
use super::names::Named;
use super::{Image, LookupError, Store, StoreError, assemble, convert};
use crate::Limits;
use crate::credentials::Keychain;
use crate::error::ContentError;
use crate::hosts;
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::registry::{Registry, RegistryError};
use crate::verify::{self, Blob, Documents, Layer};

/// Layers fetched at a time, as Docker does.
const DOWNLOADS: usize = 3;
/// Pieces of a layer (some 16 KiB each) that may wait to be converted.
const PIECES: usize = 64;

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
    /// Whoever does not want it any more drops the future. Layers that are whole by then stay for the next attempt, until
    /// something is removed or the store is opened.
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
            && let Ok(Ok(image)) = self.ask(reference, |store, reference| store.get(&reference.canonical())).await
        {
            progress.event(Event::Cached { name: &name });
            return Ok(image);
        }
        let registry = Registry::new(reference, options).await?;
        let (manifest, index) = registry.manifest().await?;
        let named = Named { id: manifest.config.digest, digest: manifest.digest, index };
        let named_anew = self.ask(reference, move |store, reference| {
            let there = store.name(named, std::slice::from_ref(reference))?;
            there.then(|| store.get(&reference.canonical())).transpose().map_err(PullError::from)
        });
        if let Some(image) = named_anew.await?? {
            progress.event(Event::Cached { name: &name });
            return Ok(image);
        }
        let config = registry.config(manifest.config).await?;
        let documents = verify::documents(&name, manifest, config, &options.limits)?;
        progress.event(Event::Resolved {
            name: &name,
            digest: &documents.digest.to_string(),
            layers: documents.layers.len(),
            bytes: documents.layers.iter().map(|layer| layer.size).sum(),
        });

        let (working, mut ended) = mpsc::channel(1);
        let (unpacked, limits) = (Arc::default(), options.limits);
        let fetch = Fetch { registry: &registry, image: &name, limits, unpacked, progress: &progress, working };
        let layers = self.fetch(fetch, &documents).await;
        // Whoever was still at work when a layer failed has nothing to read any more, and ends soon.
        let None::<()> = ended.recv().await else { return Err(PullError::Interrupted(name)) };
        let (store, reference) = (self.clone(), reference.clone());
        let assembled = tokio::task::spawn_blocking(move || {
            let assembled = layers.and_then(|layers| {
                let staging = store.staging()?;
                assemble::assemble(&staging, &documents, &layers, &limits, progress.as_ref())?;
                store.publish(staging, named, std::slice::from_ref(&reference))?;
                progress.event(Event::Finished { name: &documents.image });
                Ok(store.get(&reference.canonical())?)
            });
            assembled.inspect_err(|_| store.tidy())
        });
        assembled.await.map_err(|_| PullError::Interrupted(name))?
    }

    /// Asks the store, which reads and locks files, on a thread that may wait.
    async fn ask<T: Send + 'static>(
        &self,
        reference: &Reference,
        question: impl FnOnce(&Self, &Reference) -> T + Send + 'static,
    ) -> Result<T, PullError> {
        let (store, reference) = (self.clone(), reference.clone());
        let name = reference.familiar();
        let answer = tokio::task::spawn_blocking(move || question(&store, &reference)).await;
        answer.map_err(|_| PullError::Interrupted(name))
    }

    /// All layers, lowest first. They need nothing of each other.
    async fn fetch(&self, fetch: Fetch<'_>, documents: &Documents) -> Result<Vec<Held>, PullError> {
        let total = documents.layers.len();
        let fetches: Vec<_> = documents.layers.iter().map(|layer| self.layer(&fetch, layer).boxed()).collect();
        let mut arriving = futures::stream::iter(fetches).buffered(DOWNLOADS);
        let mut layers = Vec::with_capacity(total);
        while let Some(layer) = arriving.next().await {
            let (held, digest) = layer?;
            fetch.progress.event(Event::Applied { digest: &digest, index: layers.len(), layers: total });
            layers.push(held);
        }
        Ok(layers)
    }

    /// One layer, fetched and taken apart unless it is here already.
    async fn layer(&self, fetch: &Fetch<'_>, layer: &Layer) -> Result<(Held, String), PullError> {
        let digest = layer.digest.to_string();
        let interrupted = |_| PullError::Interrupted(fetch.image.to_owned());
        let (store, diff_id) = (self.clone(), layer.diff_id);
        let wanted = tokio::task::spawn_blocking(move || store.want_layer(diff_id)).await.map_err(interrupted)??;
        let staging = match wanted {
            Wanted::Present(held) => return Ok((held, digest)),
            Wanted::Missing(staging) => staging,
        };
        let (sender, receiver) = mpsc::channel(PIECES);
        let arriving = Arriving {
            receiver,
            piece: Bytes::new(),
            progress: Arc::clone(fetch.progress),
            digest: digest.clone(),
            done: 0,
            total: layer.size,
        };
        let (store, wanted, image) = (self.clone(), layer.clone(), fetch.image.to_owned());
        let (limits, unpacked, working) = (fetch.limits, Arc::clone(&fetch.unpacked), fetch.working.clone());
        let conversion = tokio::task::spawn_blocking(move || -> Result<Held, PullError> {
            let _working = working;
            let before = unpacked.load(Ordering::Relaxed);
            let converted = convert::convert(arriving, &wanted, staging.path(), &limits, before);
            unpacked.fetch_add(converted.map_err(refused(&image, &wanted))?, Ordering::Relaxed);
            Ok(store.publish_layer(staging, wanted.diff_id)?)
        });
        let fetched = fetch.registry.blob(Blob { digest: layer.digest, size: layer.size }, &sender).await;
        drop(sender);
        let converted = conversion.await.map_err(interrupted)?;
        // The converter only misses what did not come: why it did not come says more.
        fetched?;
        Ok((converted?, digest))
    }
}

/// What the fetching of all layers of an image has in common.
struct Fetch<'a> {
    registry: &'a Registry,
    image: &'a str,
    limits: Limits,
    /// Uncompressed bytes of the layers that are done. The few that are under way do not see each other's.
    unpacked: Arc<AtomicU64>,
    progress: &'a Arc<dyn Progress>,
    /// Held by whoever converts a layer.
    working: mpsc::Sender<()>,
}

/// A blob as it arrives.
struct Arriving {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
    progress: Arc<dyn Progress>,
    digest: String,
    done: u64,
    total: u64,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.piece.is_empty() {
            let Some(piece) = self.receiver.blocking_recv() else { return Ok(0) };
            self.done += piece.len() as u64;
            self.progress.event(Event::Layer { digest: &self.digest, done: self.done, total: self.total });
            self.piece = piece;
        }
        let got = self.piece.len().min(buffer.len());
        let piece = self.piece.split_to(got);
        buffer.get_mut(..got).unwrap_or_default().copy_from_slice(&piece);
        Ok(got)
    }
}
