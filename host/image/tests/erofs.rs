//! Random layers become an image that `fsck.erofs` accepts and that an independent reader and an
//! independent model of merging agree on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::layers::{Item, What};
use common::model::Held;
use common::reader::Seen;
use common::{build, fsck, layers, model, reader};
use proptest::prelude::*;

fn same(expected: &BTreeMap<String, Held>, seen: &BTreeMap<Vec<u8>, Seen>) {
    let expected_paths: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
    let seen_paths: BTreeSet<&str> = seen.keys().map(|path| std::str::from_utf8(path).unwrap()).collect();
    assert_eq!(expected_paths, seen_paths);
    let mut nids: BTreeMap<usize, u64> = BTreeMap::new();
    for (path, want) in expected {
        let got = &seen[path.as_bytes()];
        let (format, data, rdev): (u16, &[u8], u32) = match &want.what {
            What::File(data) => (0o100_000, data, 0),
            What::Directory => (0o040_000, &[], 0),
            What::Symlink(target) => (0o120_000, target.as_bytes(), 0),
            What::CharDevice(major, minor) => (0o020_000, &[], major << 8 | minor),
            What::BlockDevice(major, minor) => (0o060_000, &[], major << 8 | minor),
            What::Fifo => (0o010_000, &[], 0),
            other => panic!("{other:?} is not a thing to be held"),
        };
        assert_eq!(got.mode, format | want.mode, "{path}");
        assert_eq!((got.uid, got.gid, got.mtime), (want.uid, want.gid, want.mtime), "{path}");
        assert_eq!((got.data.as_slice(), got.rdev), (data, rdev), "{path}");
        let xattrs: BTreeMap<Vec<u8>, Vec<u8>> =
            want.xattrs.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone())).collect();
        assert_eq!(got.xattrs, xattrs, "{path}");
        let nlink = if want.what == What::Directory {
            let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
            let child =
                |p: &&String| p.strip_prefix(&prefix).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'));
            2 + expected.keys().filter(child).filter(|p| expected[*p].what == What::Directory).count()
        } else {
            expected.values().filter(|held| held.inode == want.inode).count()
        };
        assert_eq!(got.nlink as usize, nlink, "{path}");
        assert_eq!(*nids.entry(want.inode).or_insert(got.nid), got.nid, "{path}: hard links share an inode");
    }
    assert_eq!(nids.values().collect::<BTreeSet<_>>().len(), nids.len(), "distinct inodes");
}

fn arb_path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => "[abc]",
        1 => "[-.!+]{1,3}[a-z]",
        1 => "[a-z]{120,255}",
    ];
    prop::collection::vec(name, 1..5).prop_map(|names| names.join("/")).prop_filter("not reserved", |path| {
        path.split('/').all(|name| name != "." && name != ".." && !name.starts_with(".wh."))
    })
}

fn arb_what() -> impl Strategy<Value = What> {
    let length = prop_oneof![Just(0), 1..100_usize, Just(2048), Just(4095), Just(4096), 4097..9000_usize];
    let file =
        (length, any::<u8>()).prop_map(|(len, seed)| What::File((0..len).map(|at| (at % 251) as u8 ^ seed).collect()));
    prop_oneof![
        6 => file,
        4 => Just(What::Directory),
        2 => prop_oneof!["[a-z/.]{1,60}", "[a-z]{4000,4095}"].prop_map(What::Symlink),
        2 => arb_path().prop_map(What::HardLink),
        1 => (0..255_u32, 0..255_u32).prop_map(|(major, minor)| What::CharDevice(major, minor)),
        1 => (0..255_u32, 0..255_u32).prop_map(|(major, minor)| What::BlockDevice(major, minor)),
        1 => Just(What::Fifo),
        2 => Just(What::Whiteout),
        1 => Just(What::Opaque),
    ]
}

fn arb_item() -> impl Strategy<Value = Item> {
    let id = prop_oneof![4 => Just(0_u32), 1 => 0..65536_u32, 1 => any::<u32>()];
    let time = prop_oneof![3 => Just((1_700_000_000_i64, 0_u32)), 1 => (-5_000_000_000_i64..5_000_000_000, 0..1_000_000_000_u32)];
    let name = prop_oneof!["user\\.[a-z]{1,20}", "trusted\\.[a-z]{1,20}", "security\\.[a-z]{1,20}"];
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let xattrs = prop_oneof![4 => Just(BTreeMap::new()), 1 => prop::collection::btree_map(name, value, 0..5)];
    (arb_path(), arb_what(), 0..0o10000_u16, id.clone(), id, time, xattrs)
        .prop_map(|(path, what, mode, uid, gid, mtime, xattrs)| Item { path, what, mode, uid, gid, mtime, xattrs })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layers_merge_as_the_specification_says(
        layers in prop::collection::vec(prop::collection::vec(arb_item(), 0..25), 1..4)
    ) {
        // Hard links to nothing and the like are refused: leave such entries out.
        let mut kept: Vec<Vec<Item>> = Vec::new();
        for layer in layers {
            kept.push(Vec::new());
            for item in layer {
                kept.last_mut().unwrap().push(item);
                if model::merge(&kept).is_none() {
                    kept.last_mut().unwrap().pop();
                }
            }
        }
        let expected = model::merge(&kept).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let streams: Vec<Vec<u8>> = kept.iter().map(|items| layers::tar(items)).collect();
        let image = build(&streams, dir.path());
        same(&expected, &reader::read(&image));
        fsck(&image);
        let first = image.bytes();
        prop_assert!(first == build(&streams, dir.path()).bytes(), "the same layers give the same bytes");
    }
}

#[test]
fn an_empty_layer_gives_an_empty_root() {
    let dir = tempfile::tempdir().unwrap();
    let image = build(&[vec![0; 1024]], dir.path());
    assert_eq!(image.len(), 4096);
    let seen = reader::read(&image);
    assert_eq!((seen.len(), seen[&b""[..]].mode, seen[&b""[..]].nlink), (1, 0o040_755, 2));
    fsck(&image);
}

#[test]
fn a_directory_of_many_entries_spans_blocks() {
    let mut items: Vec<Item> =
        (0..5000).map(|n| Item::file(&format!("dir/{n:060}"), n.to_string().as_bytes())).collect();
    items.extend((0..70_000 / 70).map(|n| Item::new(&format!("dir/sub{n}"), What::Directory)));
    let dir = tempfile::tempdir().unwrap();
    let image = build(&[layers::tar(&items)], dir.path());
    same(&model::merge(&[items]).unwrap(), &reader::read(&image));
    fsck(&image);
}

#[test]
fn an_inode_with_more_links_than_the_compact_form_counts() {
    let mut items = vec![Item::file("f", b"x")];
    items.extend((0..66_000).map(|n| Item::new(&format!("d/{n}"), What::HardLink("f".to_owned()))));
    let dir = tempfile::tempdir().unwrap();
    let image = build(&[layers::tar(&items)], dir.path());
    assert_eq!(reader::read(&image)[&b"f"[..]].nlink, 66_001);
    fsck(&image);
}
