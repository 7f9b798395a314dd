//! What `docker save` and `podman save` write: `manifest.json`, which lists for each image its
//! config, its names and its layers (Docker Image Specification v1.2, "Combined Image JSON +
//! Filesystem Changeset Format").

use std::collections::HashMap;

use serde::Deserialize;

use super::{Archive, ArchiveError, Found};
use crate::Limits;
use crate::digest::Digest;
use crate::error::DocumentProblem;
use crate::reference::Reference;
use crate::verify::{self, Documents, Layer, OCI_MANIFEST};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Entry {
    fn names(&self) -> Vec<Reference> {
        // "<none>:<none>" is how Docker says that there is none.
        self.repo_tags.iter().flatten().filter_map(|name| name.parse().ok()).collect()
    }
}

pub(super) fn images(archive: &Archive, limits: &Limits) -> Result<Vec<Found>, ArchiveError> {
    entries(archive, limits)?.iter().map(|entry| image(archive, entry, limits)).collect()
}

/// Names by config digest, for a layout whose own index does not have them.
pub(super) fn names(archive: &Archive, limits: &Limits) -> Result<HashMap<Digest, Vec<Reference>>, ArchiveError> {
    if !archive.has("manifest.json")? {
        return Ok(HashMap::new());
    }
    let named = |entry: &Entry| Some((digest_in_name(&entry.config)?, entry.names()));
    Ok(entries(archive, limits)?.iter().filter_map(named).collect())
}

fn entries(archive: &Archive, limits: &Limits) -> Result<Vec<Entry>, ArchiveError> {
    let bytes = archive.read("manifest.json", "manifest", limits)?;
    Ok(verify::json(&bytes).map_err(verify::refuse(archive.name(), "manifest"))?)
}

fn image(archive: &Archive, entry: &Entry, limits: &Limits) -> Result<Found, ArchiveError> {
    let names = entry.names();
    let shown = names.first().map_or_else(|| archive.name().to_owned(), Reference::familiar);
    let refused = verify::refuse(&shown, "config");
    let config = archive.read(&entry.config, "config", limits)?;
    let id = verify::check_bytes(&config, digest_in_name(&entry.config), limits).map_err(&refused)?;
    let diff_ids = verify::diff_ids(&config).map_err(&refused)?;
    let members = entry.layers.clone().unwrap_or_default();
    let refused = verify::refuse(&shown, "manifest");
    if members.is_empty() {
        return Err(refused(DocumentProblem::NoLayers).into());
    }
    if members.len() > usize::from(limits.layers) {
        return Err(refused(DocumentProblem::ManyLayers(members.len())).into());
    }
    if members.len() != diff_ids.len() {
        let problem = DocumentProblem::LayerCount { manifest: members.len(), config: diff_ids.len() };
        return Err(refused(problem).into());
    }
    let mut layers = Vec::new();
    for (member, diff_id) in members.iter().zip(diff_ids) {
        let (_, size) = archive.open_member(member)?;
        let blob = member.starts_with("blobs/").then(|| digest_in_name(member)).flatten();
        layers.push(Layer { digest: blob.unwrap_or(diff_id), blob: blob.is_some(), size, diff_id });
    }
    let manifest = manifest(id, config.len(), &layers);
    let digest = Digest::of(&manifest);
    let documents = Documents { image: shown, manifest, digest, config, id, layers };
    Ok(Found { documents, names, members })
}

/// The digest that a member's name promises: `blobs/sha256/<hex>`, `<hex>.json`, `<hex>`.
fn digest_in_name(member: &str) -> Option<Digest> {
    let name = member.rsplit('/').next()?;
    Digest::from_hex(name.strip_suffix(".json").unwrap_or(name))
}

/// A manifest for an archive that has none in OCI's form: the config, and the layers as they lie
/// there.
fn manifest(config: Digest, config_len: usize, layers: &[Layer]) -> Vec<u8> {
    let layers: Vec<serde_json::Value> = layers
        .iter()
        .map(|layer| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer.digest.to_string(),
                "size": layer.size,
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.to_string(),
            "size": config_len,
        },
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}
