//! Layers from nobody's tool: whatever the bytes, an answer and no panic. And layers from
//! everybody's: GNU tar in each of its formats.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::Command;

use common::layers::{Item, What, tar};
use common::{build, fsck, reader, try_build};
use husk_image::Limits;
use husk_image::layer::decompress;
use proptest::prelude::*;

/// Reads the layer; if it is accepted, an image is written of it and checked.
fn feed(layer: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { entries: 10_000, metadata_bytes: 16 << 20, ..Limits::default() };
    let mut tar = Vec::new();
    let plain = decompress(layer).map(|plain| plain.take(64 << 20).read_to_end(&mut tar));
    let Ok(Ok(_)) = plain else { return };
    let Ok(disk) = try_build(&[tar], dir.path(), limits) else { return };
    // Holes make an image that is small on disk and large when read.
    if disk.len() <= 1 << 20 && reader::largest(&disk) <= 1 << 20 {
        reader::read(&disk);
    }
}

fn sample() -> Vec<u8> {
    tar(&[
        Item::new("d", What::Directory).xattr("user.a", b"1\n2"),
        Item::file("d/f", &[1; 700]).xattr("security.capability", &[0; 20]),
        Item::new("d/h", What::HardLink("d/f".to_owned())),
        Item::new("s", What::Symlink("d/f".to_owned())),
        Item::new("c", What::CharDevice(1, 3)),
        Item::new("d/x", What::Whiteout),
        Item::new("d", What::Opaque),
    ])
}

/// Sets the checksum of what looks like a header again, so that changes get beyond it.
fn repair(layer: &mut [u8]) {
    for block in layer.chunks_exact_mut(512) {
        let mut header = tar::Header::from_byte_slice(block).clone();
        if header.as_ustar().is_some() || header.as_gnu().is_some() {
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        feed(&bytes);
    }

    #[test]
    fn a_layer_with_changed_bytes_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut layer = sample();
        for (at, byte) in changes {
            let at = at.index(layer.len());
            layer[at] = byte;
        }
        repair(&mut layer);
        if !whole {
            layer.truncate(cut.index(layer.len()));
        }
        feed(&layer);
    }

    #[test]
    fn pax_records_of_any_kind_never_panic(
        records in prop::collection::vec(
            ("(path|linkpath|size|uid|gid|mtime|GNU\\.sparse\\.(major|minor|size|realsize|map|offset|numbytes|name)|SCHILY\\.xattr\\.user\\.a|LIBARCHIVE\\.xattr\\.user\\.b)",
             prop_oneof!["[0-9]{1,20}", "-?[0-9]{1,4}(,[0-9]{1,4}){0,4}", "[01](\\.[0-9]{1,11})?", "[ -~]{0,12}"]),
            0..8),
        data in prop::collection::vec(prop_oneof![Just(b'\n'), b'0'..=b'9', any::<u8>()], 0..1500),
    ) {
        let mut layer = Vec::new();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.as_mut_bytes()[..1].copy_from_slice(b"f");
        let records: Vec<_> = records.into_iter().map(|(key, value)| (key, value.into_bytes())).collect();
        common::layers::raw_entry(&mut layer, &mut header, &records, &data);
        layer.resize(layer.len() + 1024, 0);
        feed(&layer);
    }
}

/// A directory with what is awkward to archive.
fn awkward(dir: &std::path::Path) {
    let deep = "a-rather-long-component-name/".repeat(7);
    std::fs::create_dir_all(dir.join(&deep)).unwrap();
    std::fs::write(dir.join(&deep).join("file"), b"deep").unwrap();
    std::fs::write(dir.join("x".repeat(200)), b"long").unwrap();
    std::fs::write(dir.join("plain"), vec![9; 5000]).unwrap();
    std::fs::hard_link(dir.join("plain"), dir.join("link")).unwrap();
    std::os::unix::fs::symlink("t".repeat(300), dir.join("long-target")).unwrap();
    std::os::unix::fs::symlink("plain", dir.join("symlink")).unwrap();
    std::fs::write(dir.join("suid"), b"#!").unwrap();
    std::fs::set_permissions(dir.join("suid"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    let sparse = File::create(dir.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    for run in 0..20_u64 {
        sparse.write_all_at(&[run as u8 + 1; 4096], run * (3 << 20)).unwrap();
    }
    let mut end = File::create(dir.join("hole-at-end")).unwrap();
    end.write_all(&[5; 100]).unwrap();
    end.set_len(10 << 20).unwrap();
    File::create(dir.join("all-hole")).unwrap().set_len(32 << 20).unwrap();
}

#[test]
fn every_format_of_gnu_tar_is_read() {
    let source = tempfile::tempdir().unwrap();
    awkward(source.path());
    for arguments in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=oldgnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ] {
        let sparse = arguments.contains(&"--sparse");
        let posix = arguments.contains(&"--format=posix");
        let mut command = Command::new("tar");
        command.args(arguments).arg("-C").arg(source.path()).args(["-cf", "-"]);
        if !sparse {
            command.arg("--exclude=./all-hole");
        }
        let output = command.arg(".").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let dir = tempfile::tempdir().unwrap();
        let image = build(std::slice::from_ref(&output.stdout), dir.path());
        if sparse {
            let disk = image.len();
            assert!(disk < 3 << 20, "{arguments:?}: holes stay holes: {disk} bytes");
        }
        fsck(&image);
        let seen = reader::read(&image);
        for (path, seen) in &seen {
            let path = std::str::from_utf8(path).unwrap();
            let real = source.path().join(path);
            let metadata = std::fs::symlink_metadata(&real).unwrap();
            assert_eq!(u32::from(seen.mode), metadata.mode(), "{arguments:?} {path}");
            assert_eq!(u64::from(seen.nlink), metadata.nlink(), "{arguments:?} {path}");
            assert_eq!((seen.uid, seen.gid), (metadata.uid(), metadata.gid()));
            assert_eq!(seen.mtime.0, metadata.mtime(), "{arguments:?} {path}");
            if posix {
                assert_eq!(i64::from(seen.mtime.1), metadata.mtime_nsec(), "{arguments:?} {path}");
            }
            if metadata.is_file() {
                assert!(seen.data == std::fs::read(&real).unwrap(), "{arguments:?} {path}");
            } else if metadata.is_symlink() {
                assert_eq!(seen.data, std::fs::read_link(&real).unwrap().into_os_string().into_encoded_bytes());
            }
        }
        let expected = if sparse { 18 } else { 17 };
        assert_eq!(
            seen.len(),
            expected,
            "{arguments:?} {:?}",
            seen.keys().map(|k| String::from_utf8_lossy(k)).collect::<Vec<_>>()
        );
    }
}

#[test]
fn extended_attributes_of_gnu_tar_survive() {
    let layer = tar(&[
        Item::file("bin/ping", b"").xattr("security.capability", b"\x01\0\0\x02\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        Item::file("acl", b"").xattr("system.posix_acl_access", &[2, 0, 0, 0]),
        Item::file("other", b"").xattr("com.apple.provenance", b"x").xattr("trusted.overlay.opaque", b"y"),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let seen = reader::read(&build(&[layer], dir.path()));
    assert_eq!(seen[&b"bin/ping"[..]].xattrs[&b"security.capability"[..]].len(), 20);
    assert_eq!(seen[&b"acl"[..]].xattrs[&b"system.posix_acl_access"[..]], [2, 0, 0, 0]);
    assert!(seen[&b"other"[..]].xattrs.is_empty(), "what only overlayfs or macOS understands is left out");
}

#[test]
fn opaque_markers_and_whiteouts_by_the_thousand_take_linear_time() {
    let base: Vec<Item> = (0..20_000).map(|n| Item::file(&format!("d/{n}"), b"")).collect();
    let mut top: Vec<Item> = (0..20_000).map(|n| Item::file(&format!("d/new{n}"), b"")).collect();
    top.extend((0..20_000).map(|_| Item::new("d", What::Opaque)));
    top.extend((0..20_000).map(|_| Item::new("d", What::Whiteout)));
    let dir = tempfile::tempdir().unwrap();
    let seen = reader::read(&build(&[tar(&base), tar(&top)], dir.path()));
    assert_eq!(seen.len(), 20_002);
}
