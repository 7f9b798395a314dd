//! The store's layers: each is fetched and taken apart once, whatever images have it, and goes with the last of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::staging::{Claim, Staging, hold};
use super::{Store, StoreError, StoreLock};
use crate::digest::Digest;
use crate::layer::Stored;

/// A layer that cannot be removed while this lives.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) stored: Stored,
    _lock: File,
}

/// What is to be done about a layer.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Nothing.
    Present(Held),
    /// It is to be taken apart in the directory, and published. Nobody else does.
    Missing(Staging),
}

impl Store {
    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The layer, or the task of getting it. Waits while somebody else gets it.
    pub(super) fn want_layer(&self, diff_id: Digest) -> Result<Wanted, StoreError> {
        let failed = self.failed("making room for a layer");
        loop {
            if let Some(held) = self.hold_layer(diff_id)? {
                return Ok(Wanted::Present(held));
            }
            let lock = self.lock()?;
            let claim = Staging::claim(&self.tmp(), &format!("layer-{}", diff_id.hex())).map_err(&failed)?;
            match claim {
                // It may have come between looking and claiming.
                Claim::Ours(staging) => match self.hold_layer(diff_id)? {
                    Some(held) => return Ok(Wanted::Present(held)),
                    None => return Ok(Wanted::Missing(staging)),
                },
                Claim::Theirs(dir) => {
                    drop(lock);
                    dir.lock().map_err(&failed)?;
                }
            }
        }
    }

    /// The layer, if it is here.
    pub(super) fn hold_layer(&self, diff_id: Digest) -> Result<Option<Held>, StoreError> {
        let dir = self.layers().join(diff_id.hex());
        let held = hold(&dir.join("data")).and_then(|lock| match lock {
            Some(lock) => Stored::open(&dir, diff_id).map(|stored| Some(Held { stored, _lock: lock })),
            None => Ok(None),
        });
        held.map_err(self.failed("opening a layer"))
    }

    /// Puts a layer, complete in `staging`, in its place.
    pub(super) fn publish_layer(&self, staging: Staging, diff_id: Digest) -> Result<Held, StoreError> {
        let failed = self.failed("putting a layer in its place");
        let place = self.layers().join(diff_id.hex());
        // Held before it can be found, so that nobody finds it unused.
        let _lock = self.lock()?;
        let kept = hold(&staging.path().join("data")).map_err(&failed)?;
        let lock = kept.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        self.bury_layer(diff_id)?;
        staging.publish(&place).map_err(&failed)?;
        Ok(Held { stored: Stored::open(&place, diff_id).map_err(&failed)?, _lock: lock })
    }

    /// After a failure: what it leaves goes now rather than when the store is next opened.
    pub(super) fn tidy(&self) {
        if let Err(error) = self.lock().and_then(|lock| self.sweep_layers(&lock)) {
            tracing::warn!(%error, "layers that no image has may be left");
        }
    }

    /// Removes layers that no image has and nobody holds.
    pub(super) fn sweep_layers(&self, _lock: &StoreLock) -> Result<(), StoreError> {
        let failed = self.failed("looking through its layers");
        let mut present = Vec::new();
        for entry in std::fs::read_dir(self.layers()).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            present.extend(name.to_str().and_then(Digest::from_hex));
        }
        let mut used = BTreeSet::new();
        for id in self.ids()? {
            match self.layers_of(id) {
                Ok(layers) => used.extend(layers),
                Err(error) => {
                    tracing::warn!(image = id.hex(), %error, "an image is damaged: no layer is removed");
                    return Ok(());
                }
            }
        }
        for diff_id in present.into_iter().filter(|diff_id| !used.contains(diff_id)) {
            let data = File::open(self.layers().join(diff_id.hex()).join("data"));
            if data.as_ref().is_ok_and(|data| data.try_lock().is_err()) {
                continue;
            }
            self.bury_layer(diff_id)?;
        }
        Ok(())
    }

    /// The layers that an image has, lowest first.
    pub(super) fn layers_of(&self, id: Digest) -> io::Result<Vec<Digest>> {
        let config = super::image::read_config(&self.dir(id))?;
        let bad = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        config.rootfs().diff_ids().iter().map(|text| text.parse().map_err(bad)).collect()
    }

    fn bury_layer(&self, diff_id: Digest) -> Result<(), StoreError> {
        let failed = self.failed("removing a layer");
        let grave = Staging::new_in(&self.tmp()).map_err(&failed)?;
        match std::fs::rename(self.layers().join(diff_id.hex()), grave.path().join("layer")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}
