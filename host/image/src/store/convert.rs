//! One layer from its blob into a directory: decompressed, both digests checked, taken apart, in one pass.

use std::io::Read;
use std::path::Path;

use crate::Limits;
use crate::digest::Hashing;
use crate::error::BlobProblem;
use crate::layer::{LayerProblem, Stored, TarProblem, decompress};
use crate::verify::Layer;

/// Takes the layer apart in `dir`. `unpacked` bytes of the image's other layers are known to count towards its limit.
/// Gives the layer's uncompressed length.
pub(super) fn convert(
    blob: impl Read,
    layer: &Layer,
    dir: &Path,
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
    let split = Stored::split(&mut plain, dir, limits);
    if plain.exceeded() {
        return Err(BlobProblem::Bomb { size: layer.size, limit });
    }
    let count = plain.count();
    // A blob that is not what was asked for explains every error in it: say that first.
    let outcome = split.and_then(|()| plain.finish().map_err(|error| LayerProblem::Tar(TarProblem::Io(error))));
    if blob.exceeded() {
        return Err(BlobProblem::Size { expected: layer.size, actual: blob.count() });
    }
    if layer.blob {
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
