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
use std::path::Path;
use std::process::Command;

use husk_image::layer::Merger;
use husk_image::{Limits, erofs};

/// Merges uncompressed layers and writes the image.
pub fn build(layers: &[Vec<u8>], dir: &Path) -> std::path::PathBuf {
    let mut merger = Merger::new_in(dir, Limits::default()).unwrap();
    for layer in layers {
        merger.apply(&mut &layer[..]).unwrap();
    }
    let (tree, spool) = merger.finish().unwrap();
    let path = dir.join("image.erofs");
    let out = File::create(&path).unwrap();
    let options = erofs::Options { uuid: [7; 16] };
    let written = erofs::write(&tree, &spool, &out, &options, &mut |_, _| {}).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), written.bytes);
    assert_eq!(written.bytes % 4096, 0);
    path
}

/// Debian's `fsck.erofs` must find nothing wrong.
pub fn fsck(image: &Path) {
    let output = Command::new("fsck.erofs").arg("--extract").arg(image).output();
    let output = output.expect("fsck.erofs runs: install erofs-utils");
    assert!(
        output.status.success(),
        "fsck.erofs: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
