//! What the integration tests share: layers and images made by hand, an independent model of how
//! layers merge, an independent reader of EROFS.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, clippy::missing_panics_doc, unreachable_pub)]

pub mod archive;
pub mod cutter;
pub mod layers;
pub mod model;
pub mod puller;
pub mod reader;
pub mod registry;
pub mod server;
pub mod tls;
pub mod tokens;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use husk_image::layer::{LayerProblem, Merged, Merger, Stored};
use husk_image::{Digest, Image, Limits, erofs};

/// The files that make up an image's disk, in their order.
pub struct Disk(pub Vec<PathBuf>);

impl Disk {
    pub fn of(image: &Image) -> Self {
        Self(std::iter::once(&image.erofs_path).chain(&image.data_paths).cloned().collect())
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|path| std::fs::read(path).unwrap()).collect()
    }

    pub fn len(&self) -> u64 {
        self.0.iter().map(|path| std::fs::metadata(path).unwrap().len()).sum()
    }
}

/// Takes layers apart, merges them and writes the image.
pub fn build(layers: &[Vec<u8>], dir: &Path) -> Disk {
    try_build(layers, dir, Limits::default()).unwrap()
}

pub fn try_build(layers: &[Vec<u8>], dir: &Path, limits: Limits) -> Result<Disk, LayerProblem> {
    let mut merger = Merger::new_in(dir, limits).unwrap();
    let mut parts = vec![dir.join("image.erofs")];
    for (index, layer) in layers.iter().enumerate() {
        let dir = dir.join(index.to_string());
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        Stored::split(&mut &layer[..], &dir, &limits)?;
        let stored = Stored::open(&dir, Digest::of(layer)).unwrap();
        let mut joined = Vec::new();
        stored.join(&mut joined).unwrap();
        assert!(joined == *layer, "a layer taken apart can be put together again");
        merger.apply(&stored)?;
        if stored.blocks() > 0 && !layers[..index].contains(layer) {
            parts.push(stored.data());
        }
    }
    let Merged { tree, spool, devices } = merger.finish().unwrap();
    let out = File::create(&parts[0]).unwrap();
    let options = erofs::Options { uuid: [7; 16] };
    let written = erofs::write(&tree, &spool, &devices, &out, &options, &mut |_, _| {}).unwrap();
    assert_eq!(out.metadata().unwrap().len(), written.bytes);
    assert_eq!(erofs::read_devices(&File::open(&parts[0]).unwrap()).unwrap(), devices);
    assert_eq!(devices.len() + 1, parts.len());
    Ok(Disk(parts))
}

/// Debian's `fsck.erofs` must find nothing wrong. That of Debian 12 looks for a block in another device only where a chunk
/// names one, while the kernel goes by addresses: it is shown the disk as one device without a table.
pub fn fsck(disk: &Disk) {
    let mut bytes = disk.bytes();
    let blocks = u32::try_from(bytes.len() / 4096).unwrap();
    bytes[1024 + 36..][..4].copy_from_slice(&blocks.to_le_bytes());
    bytes[1024 + 80] &= !8;
    bytes[1024 + 86..][..4].fill(0);
    bytes[1024 + 4..][..4].fill(0);
    let sum = reader::bitwise_crc32c(&bytes[1024..4096]);
    bytes[1024 + 4..][..4].copy_from_slice(&sum.to_le_bytes());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new("fsck.erofs").arg("--extract").arg(file.path()).output();
    let output = output.expect("fsck.erofs runs: install erofs-utils");
    assert!(
        output.status.success(),
        "fsck.erofs: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
