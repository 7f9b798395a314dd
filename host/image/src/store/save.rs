//! Images out of the store, as an archive that every engine loads.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use thiserror::Error;

use super::layers::Held;
use super::{Image, LookupError, Store, StoreError};
use crate::digest::{Digest, Hashing};
use crate::progress::{Event, Progress};
use crate::reference::{Reference, familiar};
use crate::verify::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An archive that could not be written.
#[derive(Debug, Error)]
pub enum SaveError {
    /// The image is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer is not as it was.
    #[error("image {image}: its layer {layer} in the store is damaged ({cause}): remove the image and fetch it again")]
    Damaged { image: String, layer: Digest, cause: io::Error },
    /// The archive.
    #[error("the archive cannot be written: {0}; see that its disk has room and is writable")]
    Write(#[from] io::Error),
}

impl Store {
    /// Writes images, under the names by which they are asked for, as one tar archive: an OCI layout (`index.json`) and
    /// beside it what `docker save` writes (`manifest.json`). Layers are not compressed, so the manifests are new ones;
    /// the configs, and with them the images' ids, are the same.
    ///
    /// # Errors
    /// [`SaveError`]; what was written is then of no use.
    pub fn save(&self, images: &[String], out: impl Write, progress: &dyn Progress) -> Result<(), SaveError> {
        let mut archive = Archive { tar: Builder::new(out), written: Vec::new() };
        archive.file("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes())?;
        let (mut manifests, mut listed) = (Vec::new(), Vec::new());
        for name in images {
            let image = self.get(name)?;
            let reference =
                name.parse().ok().filter(|reference: &Reference| image.names.contains(&reference.canonical()));
            let saved = self.save_image(&image, reference.as_ref(), &mut archive, progress)?;
            manifests.push(saved.descriptor);
            listed.push(saved.listed);
            progress.event(Event::Finished { name });
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        archive.file("index.json", index.to_string().as_bytes())?;
        archive.file("manifest.json", Value::from(listed).to_string().as_bytes())?;
        archive.tar.into_inner()?.flush()?;
        Ok(())
    }

    fn save_image<W: Write>(
        &self,
        image: &Image,
        name: Option<&Reference>,
        archive: &mut Archive<W>,
        progress: &dyn Progress,
    ) -> Result<Saved, SaveError> {
        let shown = name.map_or_else(|| image.id.short(), Reference::familiar);
        let config = std::fs::read(self.dir(image.id.0).join("config.json"))?;
        archive.blob(image.id.0, &config)?;
        let diff_ids = self.layers_of(image.id.0)?;
        let (mut layers, mut paths) = (Vec::new(), Vec::new());
        for (index, diff_id) in diff_ids.iter().enumerate() {
            let damaged = |cause| SaveError::Damaged { image: shown.clone(), layer: *diff_id, cause };
            let held = self.hold_layer(*diff_id)?.ok_or_else(|| damaged(io::ErrorKind::NotFound.into()))?;
            // Read once to see that it is what it was, and how long.
            let size = measure(&held).map_err(damaged)?;
            archive.layer(&held, size)?;
            layers.push(json!({"mediaType": LAYER, "digest": diff_id, "size": size}));
            paths.push(blob_path(*diff_id));
            progress.event(Event::Applied { digest: &diff_id.to_string(), index, layers: diff_ids.len() });
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": image.id.0, "size": config.len()},
            "layers": layers,
        });
        let manifest = manifest.to_string();
        let digest = Digest::of(manifest.as_bytes());
        archive.blob(digest, manifest.as_bytes())?;
        let mut descriptor = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": manifest.len()});
        if let (Some(name), Some(map)) = (name, descriptor.as_object_mut()) {
            let annotations = json!({
                "io.containerd.image.name": name.canonical(),
                "org.opencontainers.image.ref.name": name.tag().unwrap_or_default(),
            });
            map.insert("annotations".to_owned(), annotations);
        }
        let tags: Vec<String> = name
            .filter(|name| name.tag().is_some())
            .map(|name| familiar(&name.canonical()).to_owned())
            .into_iter()
            .collect();
        Ok(Saved { descriptor, listed: json!({"Config": blob_path(image.id.0), "RepoTags": tags, "Layers": paths}) })
    }
}

/// How an image stands in the archive's two tables.
struct Saved {
    descriptor: Value,
    listed: Value,
}

fn blob_path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The length of a layer's tar stream, which has to be the layer's.
pub(super) fn measure(held: &Held) -> io::Result<u64> {
    let mut stream = Hashing::new(io::sink(), u64::MAX);
    held.stored.join(&mut stream)?;
    let (digest, count) = stream.sum();
    if digest == held.stored.diff_id() {
        Ok(count)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("its digest is {digest}")))
    }
}

struct Archive<W: Write> {
    tar: Builder<W>,
    /// Blobs that are in it; what images share is there once.
    written: Vec<Digest>,
}

impl<W: Write> Archive<W> {
    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.tar.append_data(&mut header(bytes.len() as u64), Path::new(name), bytes)
    }

    fn blob(&mut self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        if self.written.contains(&digest) {
            return Ok(());
        }
        self.written.push(digest);
        self.file(&blob_path(digest), bytes)
    }

    fn layer(&mut self, held: &Held, size: u64) -> io::Result<()> {
        let digest = held.stored.diff_id();
        if self.written.contains(&digest) {
            return Ok(());
        }
        self.written.push(digest);
        let mut header = header(size);
        header.set_path(blob_path(digest))?;
        header.set_cksum();
        let out = self.tar.get_mut();
        out.write_all(header.as_bytes())?;
        held.stored.join(out)?;
        // A tar stream of its own is padded already.
        let padding = size.next_multiple_of(512) - size;
        io::copy(&mut io::Read::take(io::repeat(0), padding), out)?;
        Ok(())
    }
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header
}
