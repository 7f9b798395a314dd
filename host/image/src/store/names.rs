//! `names.json`: which names mean which images. Replaced as a whole, under the store's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::staging::sync_parent;
use crate::digest::Digest;

const VERSION: u32 = 1;

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    /// The image: its config's digest.
    pub(super) id: Digest,
    /// The manifest it was fetched by.
    pub(super) digest: Digest,
    /// The index that led to the manifest, if one did: what the registry means by the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<Digest>,
}

impl Named {
    /// Whether a name with this digest means it.
    pub(super) fn is_of(&self, digest: Digest) -> bool {
        self.digest == digest || self.index == Some(digest)
    }
}

/// All names, canonical, and their images.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Names {
    version: u32,
    pub(super) names: BTreeMap<String, Named>,
}

impl Names {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { version: VERSION, names: BTreeMap::new() });
            }
            Err(error) => return Err(error),
        };
        let names: Self = serde_json::from_slice(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("it cannot be read: {error}")))?;
        if names.version != VERSION {
            let text = format!("it is of version {}, and this husk reads {VERSION}", names.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(names)
    }

    /// Replaces the file; `tmp` is on the same file system.
    pub(super) fn write(&self, path: &Path, tmp: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(tmp)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_parent(path)
    }

    /// The names by digest of one image, sorted: those that it has, and for a tag what its registry means by it.
    pub(super) fn digests_of(&self, id: Digest) -> Vec<String> {
        let named = self.names.iter().filter(|(_, named)| named.id == id);
        let digests = named.map(|(name, named)| match name.rsplit_once(':') {
            // A canonical name has either a digest or a tag.
            Some((repository, _)) if !name.contains('@') => {
                format!("{repository}@{}", named.index.unwrap_or(named.digest))
            }
            _ => name.clone(),
        });
        digests.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Names of one image.
    pub(super) fn of(&self, id: Digest) -> Vec<String> {
        self.names.iter().filter(|(_, named)| named.id == id).map(|(name, _)| name.clone()).collect()
    }
}
