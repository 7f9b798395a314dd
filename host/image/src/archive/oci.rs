//! OCI image layouts: `index.json` and `blobs/sha256/` (OCI image specification, "Image Layout").
//! Docker has written them since version 25, beside its own `manifest.json`.

use std::collections::HashMap;

use oci_spec::image::{Descriptor, ImageIndex};

use super::{Archive, ArchiveError, Found, docker};
use crate::Limits;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::verify::{self, Blob, Document};

/// The full name, as containerd and BuildKit write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// A tag, or a full name, depending on who wrote it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(super) fn images(archive: &Archive, limits: &Limits) -> Result<Vec<Found>, ArchiveError> {
    let refused = verify::refuse(archive.name(), "index");
    let index: ImageIndex = verify::json(&archive.read("index.json", "index", limits)?).map_err(&refused)?;
    let docker_names = docker::names(archive, limits)?;
    let mut images: Vec<Found> = Vec::new();
    let mut by_id: HashMap<Digest, usize> = HashMap::new();
    for entry in candidates(index.manifests()) {
        let digest: Digest =
            entry.digest().as_ref().parse().map_err(|error| refused(crate::DocumentProblem::DigestText(error)))?;
        let mut names: Vec<Reference> = name(entry).into_iter().collect();
        let shown = names.first().map_or_else(|| digest.to_string(), Reference::familiar);
        let manifest = manifest(archive, &shown, Blob { digest, size: entry.size() }, limits)?;
        let config = archive.read(&path(manifest.config.digest), "config", limits)?;
        let members = manifest.layers.iter().map(|layer| path(layer.digest)).collect();
        let documents = verify::documents(&shown, manifest, config, limits)?;
        if names.is_empty() {
            names = docker_names.get(&documents.id).cloned().unwrap_or_default();
        }
        // An image with several names has an entry for each.
        match by_id.get(&documents.id).and_then(|at| images.get_mut(*at)) {
            Some(known) => known.names.extend(names),
            None => {
                by_id.insert(documents.id, images.len());
                images.push(Found { documents, names, members });
            }
        }
    }
    Ok(images)
}

/// Entries that may be images for this machine. When none may, all are tried, so that the error
/// says what they are.
fn candidates(entries: &[Descriptor]) -> Vec<&Descriptor> {
    let ours = |entry: &&Descriptor| {
        entry.platform().as_ref().is_none_or(|platform| {
            platform.os().to_string() == "linux" && platform.architecture().to_string() == "amd64"
        })
    };
    let chosen: Vec<&Descriptor> = entries.iter().filter(ours).collect();
    if chosen.is_empty() { entries.iter().collect() } else { chosen }
}

fn name(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations().as_ref()?;
    if let Some(name) = annotations.get(CONTAINERD_NAME).and_then(|name| name.parse().ok()) {
        return Some(name);
    }
    // A bare word is a tag, and of what it does not say.
    let name = annotations.get(REF_NAME).filter(|name| name.contains(['/', ':']))?;
    name.parse().ok()
}

fn manifest(archive: &Archive, shown: &str, entry: Blob, limits: &Limits) -> Result<verify::Manifest, ArchiveError> {
    let mut wanted = entry;
    for _ in 0..2 {
        let bytes = archive.read(&path(wanted.digest), "manifest", limits)?;
        match verify::document(shown, bytes, Some(wanted.digest), limits)? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index { manifest, .. } => wanted = manifest,
        }
    }
    let problem = crate::DocumentProblem::MediaType("index within an index".to_owned());
    Err(verify::refuse(shown, "manifest")(problem).into())
}

fn path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
