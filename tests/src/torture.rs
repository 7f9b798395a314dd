//! The layers that a well-behaved builder never writes, yet every image reader must survive.
//!
//! They go on top of the Debian image. The first adds one of everything a tar can hold; the second takes away,
//! replaces and hides, as OCI image layers do. The oracle (`images/expected-listing`) reads the same layers with
//! another tar reader and another hand-written overlay of whiteouts.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::layer::{Layer, Meta};

/// A `security.capability` value (capability.h, `VFS_CAP_REVISION_2`): effective, permitted = `CAP_NET_RAW` (13).
const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Just past 64 MiB: more than any single request or buffer on the way.
const LARGE: usize = (64 << 20) + 3;
/// Enough names that a directory needs many blocks.
const CROWD: usize = 3_000;
const MIB: u64 = 1 << 20;

fn root(name: impl AsRef<Path>) -> PathBuf {
    Path::new("opt/torture").join(name)
}

/// Writes the layer with one of everything.
pub fn additions<W: Write>(out: W) -> io::Result<()> {
    let mut layer = Layer::new(out);
    layer.dir("opt/torture", Meta::mode(0o755))?;
    modes_and_owners(&mut layer)?;
    names(&mut layer)?;
    links(&mut layer)?;
    special_files(&mut layer)?;
    xattrs(&mut layer)?;
    sizes(&mut layer)?;
    layer.dir(root("crowd"), Meta::mode(0o755))?;
    for n in 0..CROWD {
        layer.file(root(format!("crowd/member-{n:05}")), Meta::mode(0o644), n.to_string().as_bytes())?;
    }
    to_be_changed(&mut layer)?;
    layer.finish().map(drop)
}

fn modes_and_owners<W: Write>(layer: &mut Layer<W>) -> io::Result<()> {
    layer.file(root("set-uid"), Meta::mode(0o4755), b"set-uid")?;
    layer.file(root("set-gid"), Meta::mode(0o2755).owner(0, 42), b"set-gid")?;
    layer.file(root("no-access"), Meta::mode(0), b"nobody")?;
    layer.dir(root("sticky"), Meta::mode(0o1777))?;
    layer.dir(root("set-gid-dir"), Meta::mode(0o2775).owner(7, 42))?;
    layer.file(root("owner-16-bits"), Meta::mode(0o640).owner(65_535, 65_535), b"")?;
    layer.file(root("owner-17-bits"), Meta::mode(0o640).owner(70_000, 131_072), b"")?;
    // 4294967295 means "no owner" to chown(2); one less is the largest that exists.
    layer.file(root("owner-32-bits"), Meta::mode(0o640).owner(4_294_967_294, 4_000_000_000), b"")?;
    layer.file(root("old"), Meta { mtime: 0, ..Meta::mode(0o644) }, b"1970")?;
    layer.file(root("after-2038"), Meta { mtime: 4_102_444_800, ..Meta::mode(0o644) }, b"2100")
}

fn names<W: Write>(layer: &mut Layer<W>) -> io::Result<()> {
    let dir = root("names");
    layer.dir(&dir, Meta::mode(0o755))?;
    let odd: [&[u8]; 9] = [
        b"with space",
        b"with\nnewline",
        b"back\\slash",
        b"-dash",
        b"...",
        b".hidden",
        "\u{fc}ml\u{e4}ut-\u{732b}".as_bytes(),
        b"not-utf8-\xff\xfe",
        b"wh.not-a-whiteout",
    ];
    for name in odd {
        layer.file(dir.join(OsStr::from_bytes(name)), Meta::mode(0o644), name)?;
    }
    layer.file(dir.join("n".repeat(255)), Meta::mode(0o644), b"the longest name")?;
    let mut deep = dir;
    for level in 0..12 {
        deep = deep.join(format!("{level:02}-{}", "d".repeat(60)));
        layer.dir(&deep, Meta::mode(0o755))?;
    }
    layer.file(deep.join("bottom"), Meta::mode(0o644), b"far down")?;
    // No directory entries on the way: the reader has to make them.
    layer.file(root("implied/parents/file"), Meta::mode(0o600), b"implied")
}

fn links<W: Write>(layer: &mut Layer<W>) -> io::Result<()> {
    layer.dir(root("links"), Meta::mode(0o755))?;
    layer.file(root("links/original"), Meta::mode(0o640).owner(1, 2), b"one inode, three names")?;
    layer.hard_link(root("links/second-name"), root("links/original"))?;
    layer.hard_link(root("third-name"), root("links/original"))?;
    layer.symlink(root("links/relative"), "original")?;
    layer.symlink(root("links/absolute"), "/etc/passwd")?;
    layer.symlink(root("links/dangling"), "/no/such/file")?;
    layer.symlink(root("links/outside"), "../../../../../../../../etc/shadow")?;
    layer.symlink(root("links/loop"), "loop")?;
    layer.symlink(root("links/long"), format!("/{}", "t/".repeat(1_000)))?;
    layer.hard_link(root("links/name-of-a-link"), root("links/relative"))
}

fn special_files<W: Write>(layer: &mut Layer<W>) -> io::Result<()> {
    layer.dir(root("special"), Meta::mode(0o755))?;
    layer.char_device(root("special/null"), Meta::mode(0o666), (1, 3))?;
    layer.char_device(root("special/tun"), Meta::mode(0o600), (10, 200))?;
    layer.block_device(root("special/wide-minor"), Meta::mode(0o660).owner(0, 6), (259, 70_000))?;
    layer.fifo(root("special/fifo"), Meta::mode(0o622))
}

fn xattrs<W: Write>(layer: &mut Layer<W>) -> io::Result<()> {
    let large = vec![b'v'; 3_000];
    layer.dir_with_xattrs(root("xattrs"), Meta::mode(0o755), &[("user.on-a-directory", b"yes")])?;
    layer.file_with_xattrs(root("xattrs/capable"), Meta::mode(0o755), b"cap", &[("security.capability", &NET_RAW)])?;
    layer.file_with_xattrs(
        root("xattrs/many"),
        Meta::mode(0o644),
        b"x",
        &[
            ("user.empty", b""),
            ("user.binary", b"\0\x01\xff\n="),
            ("user.large", &large),
            ("trusted.seen-by-root", b"only"),
            ("user.unusual name", b"with a space"),
        ],
    )?;
    for n in 0..20 {
        let name = format!("xattrs/shared-{n}");
        layer.file_with_xattrs(root(name), Meta::mode(0o644), b"", &[("user.same", b"value in twenty files")])?;
    }
    Ok(())
}

fn sizes<W: Write>(layer: &mut Layer<W>) -> io::Result<()> {
    layer.dir(root("sizes"), Meta::mode(0o755))?;
    for size in [0, 1, 511, 512, 4_095, 4_096, 4_097, 65_537] {
        layer.file(root(format!("sizes/{size}")), Meta::mode(0o644), &pattern(size))?;
    }
    layer.file(root("sizes/large"), Meta::mode(0o644), &pattern(LARGE))?;
    let block = pattern(4_096);
    let extents = [(0, block.as_slice()), (7 * MIB + 512, block.as_slice()), (96 * MIB - 7, b"the end".as_slice())];
    layer.sparse(root("sizes/sparse"), Meta::mode(0o644), 96 * MIB, &extents)?;
    layer.sparse(root("sizes/all-hole"), Meta::mode(0o644), 5 * MIB, &[])
}

/// Counted lines: differs at every offset, and compresses.
fn pattern(size: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(size.saturating_add(16));
    let mut line = 0_u32;
    while data.len() < size {
        data.extend_from_slice(format!("{line:011}\n").as_bytes());
        line = line.wrapping_add(1);
    }
    data.truncate(size);
    data
}

fn to_be_changed<W: Write>(layer: &mut Layer<W>) -> io::Result<()> {
    for dir in ["gone-dir", "gone-dir/deep", "opaque", "opaque/old-dir", "becomes-file", "becomes-link", "kept"] {
        layer.dir(root(dir), Meta::mode(0o755))?;
    }
    let files = [
        "gone-file",
        "gone-dir/a",
        "gone-dir/deep/b",
        "opaque/old",
        "opaque/old-dir/old",
        "becomes-dir",
        "becomes-file/child",
        "becomes-link/child",
        "replaced",
        "again",
        "kept/child",
        "linked-later",
    ];
    for file in files {
        layer.file(root(file), Meta::mode(0o644), format!("below: {file}").as_bytes())?;
    }
    layer.hard_link(root("survivor"), root("gone-file"))?;
    layer.file_with_xattrs(root("loses-xattr"), Meta::mode(0o644), b"old", &[("user.old", b"1")])
}

/// Writes the layer that removes, replaces and hides.
pub fn changes<W: Write>(out: W) -> io::Result<()> {
    let mut layer = Layer::new(out);
    layer.whiteout(root("gone-file"))?;
    layer.whiteout(root("gone-dir"))?;
    // A whiteout speaks of the layers below only, wherever in the archive it stands.
    layer.file(root("opaque/new"), Meta::mode(0o644), b"new")?;
    layer.opaque(root("opaque"))?;
    layer.file(root("again"), Meta::mode(0o600), b"back in the same layer")?;
    layer.whiteout(root("again"))?;
    layer.dir(root("becomes-dir"), Meta::mode(0o700))?;
    layer.file(root("becomes-dir/child"), Meta::mode(0o644), b"child")?;
    layer.file(root("becomes-file"), Meta::mode(0o644), b"no directory any more")?;
    layer.symlink(root("becomes-link"), "kept")?;
    layer.file(root("replaced"), Meta::mode(0o755).owner(9, 9), b"above")?;
    // A directory seen again changes its own metadata, not its content.
    layer.dir(root("kept"), Meta::mode(0o711).owner(3, 4))?;
    layer.hard_link(root("link-into-the-layer-below"), root("linked-later"))?;
    layer.file(root("loses-xattr"), Meta::mode(0o644), b"new")?;
    // Whiteouts of what never was are no error.
    layer.whiteout(root("never-was"))?;
    layer.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layers_are_readable_archives() {
        let (mut below, mut above) = (Vec::new(), Vec::new());
        additions(&mut below).unwrap();
        changes(&mut above).unwrap();
        for bytes in [below, above] {
            let mut archive = tar::Archive::new(bytes.as_slice());
            for entry in archive.entries().unwrap() {
                entry.unwrap().path().unwrap();
            }
        }
    }
}
