//! The one page of making an image: layers in, a staged directory with an EROFS image out.

use std::fs::File;
use std::io::{self, Read};

use super::staging::Staging;
use crate::Limits;
use crate::digest::{Digest, Hashing};
use crate::erofs;
use crate::error::{BlobProblem, ContentError};
use crate::layer::{LayerProblem, Merger, TarProblem, decompress};
use crate::progress::{Event, Progress};
use crate::tree::{Content, Kind, Spool, Tree};
use crate::verify::{Documents, Layer};

/// Files of the image that are kept for looking up users, and their names in the store.
const USER_FILES: [(&[u8], &str); 2] = [(b"/etc/passwd", "passwd"), (b"/etc/group", "group")];

/// Longest such file that is kept; a longer one is as good as none.
const USER_FILE_MAX: u64 = 1 << 20;

/// Where layers come from, lowest first.
pub(super) trait Layers {
    /// Why a layer cannot be had.
    type Error: From<ContentError>;

    /// The layer's blob. `true`: its digest was verified already.
    fn open(&mut self, index: usize, layer: &Layer) -> Result<(Box<dyn Read + '_>, bool), Self::Error>;
}

/// Merges the layers and writes everything that the store keeps of an image into `staging`.
pub(super) fn convert<L: Layers>(
    staging: &Staging,
    image: &Documents,
    layers: &mut L,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<(), L::Error> {
    let host = |what| move |cause| ContentError::Host { image: image.image.clone(), what, cause };
    let mut merger = Merger::new_in(staging.path(), *limits).map_err(host("making room for its contents"))?;
    let mut unpacked = 0;
    for (index, layer) in image.layers.iter().enumerate() {
        let (blob, verified) = layers.open(index, layer)?;
        let refused = |problem| ContentError::Layer {
            image: image.image.clone(),
            layer: layer.digest,
            problem: Box::new(problem),
        };
        unpacked += apply(&mut merger, blob, verified, layer, limits, unpacked).map_err(refused)?;
        let digest = layer.digest.to_string();
        progress.event(Event::Applied { digest: &digest, index, layers: image.layers.len() });
    }
    let (tree, spool) = merger.finish().map_err(host("writing its contents"))?;
    write_image(staging, image, &tree, &spool, progress)?;
    for (path, name) in USER_FILES {
        if let Some(bytes) = user_file(&tree, &spool, path).map_err(host("reading its contents back"))? {
            staging.write(name, &bytes).map_err(host("writing its user files"))?;
        }
    }
    staging.write("manifest.json", &image.manifest).map_err(host("writing its manifest"))?;
    staging.write("config.json", &image.config).map_err(host("writing its config"))?;
    Ok(())
}

/// One layer: decompressed, its digests checked, merged. Gives its uncompressed length.
fn apply(
    merger: &mut Merger,
    blob: Box<dyn Read + '_>,
    verified: bool,
    layer: &Layer,
    limits: &Limits,
    unpacked: u64,
) -> Result<u64, BlobProblem> {
    let broken = |error| BlobProblem::Content(LayerProblem::Tar(TarProblem::Io(error)));
    let mut blob = Hashing::new(blob, layer.size);
    let limit = limits
        .unpacked_bytes
        .saturating_sub(unpacked)
        .min(Limits::RATIO_FREE_BYTES.saturating_add(layer.size.saturating_mul(limits.ratio)));
    let mut plain = Hashing::new(decompress(&mut blob).map_err(broken)?, limit);
    let merged = merger.apply(&mut plain);
    if plain.exceeded() {
        return Err(BlobProblem::Bomb { size: layer.size, limit });
    }
    let count = plain.count();
    // A blob that is not what was asked for explains every error in it: say that first.
    let outcome = merged.and_then(|()| plain.finish().map_err(|error| LayerProblem::Tar(TarProblem::Io(error))));
    if blob.exceeded() {
        return Err(BlobProblem::Size { expected: layer.size, actual: blob.count() });
    }
    if layer.blob && !verified {
        let (actual, size) = blob.finish().map_err(broken)?;
        if size != layer.size {
            return Err(BlobProblem::Size { expected: layer.size, actual: size });
        }
        if actual != layer.digest {
            return Err(BlobProblem::Digest { actual });
        }
    }
    let (actual, _) = outcome.map_err(BlobProblem::Content)?;
    if actual != layer.diff_id {
        return Err(BlobProblem::DiffId { expected: layer.diff_id, actual });
    }
    Ok(count)
}

fn write_image(
    staging: &Staging,
    image: &Documents,
    tree: &Tree,
    spool: &Spool,
    progress: &dyn Progress,
) -> Result<(), ContentError> {
    let failed = |cause| ContentError::Write { image: image.image.clone(), cause };
    let out = File::create_new(staging.path().join("image.erofs")).map_err(|error| failed(error.into()))?;
    let options = erofs::Options { uuid: uuid(image) };
    let mut report = |done, total| progress.event(Event::Writing { done, total });
    erofs::write(tree, spool, &out, &options, &mut report).map_err(failed)?;
    out.sync_all().map_err(|error| failed(error.into()))
}

/// A UUID (version 8, RFC 9562) that follows from the layers' contents and nothing else.
fn uuid(image: &Documents) -> [u8; 16] {
    let mut seed = b"husk erofs 1".to_vec();
    image.layers.iter().for_each(|layer| seed.extend(layer.diff_id.bytes()));
    let hash = Digest::of(&seed);
    let mut uuid = [0; 16];
    uuid.iter_mut().zip(hash.bytes()).for_each(|(byte, hash)| *byte = *hash);
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut uuid;
    *version = *version & 0x0f | 0x80;
    *variant = *variant & 0x3f | 0x80;
    uuid
}

fn user_file(tree: &Tree, spool: &Spool, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some(node) = tree.resolve(path) else { return Ok(None) };
    match &tree.node(node).kind {
        Kind::File { size, content: Content::Dense(at) } if *size <= USER_FILE_MAX => {
            let mut bytes = vec![0; usize::try_from(*size).unwrap_or_default()];
            spool.read_exact_at(&mut bytes, *at)?;
            Ok(Some(bytes))
        }
        _ => Ok(None),
    }
}
