//! An image of one layer: the program, a directory to work in, and the tree of the read-only checks.

use std::path::{Path, PathBuf};

use crate::layer::{Layer, Meta};
use crate::oci::{Compression, Defaults, Layout, archive};

/// Where things are in the image.
pub const PROGRAM: &str = "/husk-fs-behaviour";
/// A directory to write in, or to mount something over.
pub const WORK: &str = "/work";
/// What `husk-fs-behaviour read-only` looks at.
pub const TREE: &str = "/tree";

/// The static program; `ci/test` builds it and says where it is.
fn program() -> Vec<u8> {
    let path = PathBuf::from(std::env::var_os("HUSK_FS_BEHAVIOUR").expect("HUSK_FS_BEHAVIOUR: run this by ci/test"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The layer as a tar.
///
/// # Panics
///
/// When the program is not there.
#[must_use]
fn layer() -> Vec<u8> {
    let program = program();
    let mut layer = Layer::new(Vec::new());
    fill(&mut layer, &program).expect("a layer in memory");
    layer.finish().expect("a layer in memory")
}

fn fill(layer: &mut Layer<Vec<u8>>, program: &[u8]) -> std::io::Result<()> {
    let executable = Meta::mode(0o755);
    let plain = Meta::mode(0o644);
    for directory in ["proc", "dev", "sys", "tmp", "etc", "work"] {
        layer.dir(directory, executable)?;
    }
    layer.file("husk-fs-behaviour", executable, program)?;

    layer.dir("tree", executable)?;
    layer.file("tree/file", plain, b"content")?;
    layer.file("tree/empty", plain, b"")?;
    let large: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n.wrapping_mul(n) >> 7 & 0xff).unwrap_or(0)).collect();
    layer.file("tree/large", plain, &large)?;
    layer.file("tree/program", executable, program)?;
    layer.file("tree/sticky", Meta::mode(0o1644), b"x")?;
    layer.file("tree/set-id", Meta::mode(0o6755), b"x")?;
    layer.file("tree/owned", Meta::mode(0o640).owner(1000, 4_000_000_000), b"x")?;
    layer.file_with_xattrs("tree/attributed", plain, b"x", &[("user.colour", b"green")])?;
    layer.file(format!("tree/{}", "n".repeat(255)), plain, b"x")?;
    layer.dir("tree/directory", executable)?;
    for n in 0..1000 {
        layer.file(format!("tree/directory/entry-{n:03}"), plain, b"x")?;
    }
    layer.dir("tree/closed", Meta::mode(0o700))?;
    layer.symlink("tree/link", "file")?;
    layer.symlink("tree/dangling", "nowhere")?;
    layer.symlink("tree/loop", "loop")?;
    layer.fifo("tree/pipe", Meta::mode(0o666))?;
    layer.file("tree/hard-a", plain, b"x")?;
    layer.hard_link("tree/hard-b", "tree/hard-a")
}

/// Unpacks the layer in `directory`, as a root file system for runc.
pub(super) fn unpack(directory: &Path) {
    let tar = directory.with_extension("tar");
    std::fs::write(&tar, layer()).expect("a file of ours");
    std::fs::create_dir(directory).expect("a directory of ours");
    let mut unpack = std::process::Command::new("tar");
    unpack.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]).arg(&tar).arg("-C").arg(directory);
    let status = unpack.status().expect("tar");
    assert!(status.success(), "tar cannot unpack {}", tar.display());
}

/// An archive with the image `behaviour:latest`, for `husk load`.
///
/// # Panics
///
/// When it cannot be written.
#[must_use]
pub fn image(directory: &Path) -> PathBuf {
    let write = || -> std::io::Result<PathBuf> {
        let layout = Layout::create(directory.join("layout"))?;
        let layer = layout.layer(layer().as_slice(), Compression::None)?;
        let image = layout.image("amd64", &Defaults::default(), &[layer])?;
        let layout = layout.finish(image, "docker.io/library/behaviour:latest")?;
        let out = directory.join("behaviour.tar");
        archive(&layout, &out)?;
        Ok(out)
    };
    write().expect("an archive of ours")
}
