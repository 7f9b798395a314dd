//! An image from its layers: merged, and everything that the store keeps of it written into a staged directory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::layers::Held;
use super::staging::Staging;
use crate::Limits;
use crate::digest::Digest;
use crate::erofs::{self, BLOCK};
use crate::error::{BlobProblem, ContentError};
use crate::layer::{Merged, Merger};
use crate::progress::{Event, Progress};
use crate::tree::{Content, Kind};
use crate::verify::Documents;

/// Files of the image that are kept for looking up users, and their names in the store.
const USER_FILES: [(&[u8], &str); 2] = [(b"/etc/passwd", "passwd"), (b"/etc/group", "group")];

/// Longest such file that is kept; a longer one is as good as none.
const USER_FILE_MAX: u64 = 1 << 20;

/// Merges `layers`, which are those of `image`, lowest first.
pub(super) fn assemble(
    staging: &Staging,
    image: &Documents,
    layers: &[Held],
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<(), ContentError> {
    let host = |what| move |cause| ContentError::Host { image: image.image.clone(), what, cause };
    let mut merger = Merger::new_in(staging.path(), *limits).map_err(host("making room for its contents"))?;
    for (layer, held) in image.layers.iter().zip(layers) {
        merger.apply(&held.stored).map_err(|problem| ContentError::Layer {
            image: image.image.clone(),
            layer: layer.digest,
            problem: Box::new(BlobProblem::Content(problem)),
        })?;
    }
    let merged = merger.finish().map_err(host("writing its contents"))?;
    write_image(staging, image, &merged, progress)?;
    for (path, name) in USER_FILES {
        if let Some(bytes) = user_file(&merged, layers, path).map_err(host("reading its contents back"))? {
            staging.write(name, &bytes).map_err(host("writing its user files"))?;
        }
    }
    staging.write("manifest.json", &image.manifest).map_err(host("writing its manifest"))?;
    staging.write("config.json", &image.config).map_err(host("writing its config"))
}

fn write_image(
    staging: &Staging,
    image: &Documents,
    merged: &Merged,
    progress: &dyn Progress,
) -> Result<(), ContentError> {
    let failed = |cause| ContentError::Write { image: image.image.clone(), cause };
    let out = File::create_new(staging.path().join("image.erofs")).map_err(|error| failed(error.into()))?;
    let options = erofs::Options { uuid: uuid(image) };
    let mut report = |done, total| progress.event(Event::Writing { done, total });
    let Merged { tree, spool, devices } = merged;
    erofs::write(tree, spool, devices, &out, &options, &mut report).map_err(failed)?;
    out.sync_all().map_err(|error| failed(error.into()))
}

/// A UUID (version 8, RFC 9562) that follows from the layers' contents and nothing else.
fn uuid(image: &Documents) -> [u8; 16] {
    let mut seed = b"husk erofs 2".to_vec();
    image.layers.iter().for_each(|layer| seed.extend(layer.diff_id.bytes()));
    let hash = Digest::of(&seed);
    let mut uuid = [0; 16];
    uuid.iter_mut().zip(hash.bytes()).for_each(|(byte, hash)| *byte = *hash);
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut uuid;
    *version = *version & 0x0f | 0x80;
    *variant = *variant & 0x3f | 0x80;
    uuid
}

fn user_file(merged: &Merged, layers: &[Held], path: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some(node) = merged.tree.resolve(path) else { return Ok(None) };
    let Kind::File { size, content: Content::Dense { blocks, tail } } = &merged.tree.node(node).kind else {
        return Ok(None);
    };
    if *size > USER_FILE_MAX {
        return Ok(None);
    }
    let tail_len = if tail.is_some() { size % BLOCK } else { 0 };
    let mut bytes = Vec::new();
    let device = merged.devices.get(usize::from(blocks.device));
    let held = device.and_then(|device| layers.iter().find(|held| held.stored.diff_id() == device.tag));
    if let Some(held) = held.filter(|_| *size > tail_len) {
        let mut data = File::open(held.stored.data())?;
        data.seek(SeekFrom::Start(u64::from(blocks.first) * BLOCK))?;
        data.take(size - tail_len).read_to_end(&mut bytes)?;
    }
    if let Some(at) = tail {
        let body = bytes.len();
        bytes.resize(body + usize::try_from(tail_len).unwrap_or_default(), 0);
        merged.spool.read_exact_at(bytes.get_mut(body..).unwrap_or_default(), *at)?;
    }
    Ok(Some(bytes))
}
