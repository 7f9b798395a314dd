//! What the store keeps, shares, tells, gives away and lets go.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::archive::{TestImage, tar_of};
use common::layers::{Item, What, tar};
use common::{Disk, reader};
use husk_image::{ArchiveSource, CheckError, Image, PruneOptions, SaveError, Silent, Store, Usage};
use serde_json::json;

fn noise(seed: u32, len: u32) -> Vec<u8> {
    (0..len / 4).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

/// Some files of every size that is stored in its own way.
fn base() -> Vec<u8> {
    let mut items = vec![Item::new("etc", What::Directory), Item::file("etc/passwd", b"root:x:0:0::/:/bin/sh\n")];
    for len in [0, 1, 2048, 2049, 4095, 4096, 4097, 6144, 6145, 300_000] {
        items.push(Item::file(&format!("etc/{len}"), &noise(len, len + 3)[..len as usize]));
    }
    items.push(Item::file("etc/labelled", &noise(9, 2000)).xattr("user.long", &[7; 3000]));
    tar(&items)
}

fn app(seed: u32) -> TestImage {
    TestImage::new(vec![base(), tar(&[Item::file("app", &noise(seed, 50_000))])])
}

async fn load(store: &Store, image: &TestImage, name: &str) -> Image {
    let source = ArchiveSource::Reader(Box::new(std::io::Cursor::new(tar_of(&image.layout(&json!({}))))));
    store.load(source, Some(&name.parse().unwrap()), Arc::new(Silent)).await.unwrap().remove(0)
}

fn du(path: &Path) -> Usage {
    let count = |what| {
        let output = Command::new("du").args(["-s", what]).arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    Usage { bytes: count("--block-size=1"), inodes: count("--inodes") }
}

fn layers(root: &Path) -> usize {
    std::fs::read_dir(root.join("layers")).unwrap().count()
}

#[tokio::test]
async fn images_share_the_layers_that_they_have_in_common() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let one = load(&store, &app(1), "one").await;
    let before = store.usage().unwrap().bytes;
    let two = load(&store, &app(2), "two").await;
    let added = store.usage().unwrap().bytes - before;
    assert!(added < 150_000, "the second image takes {added} bytes more");
    assert_eq!(one.data_paths[0], two.data_paths[0]);
    assert_eq!(layers(root.path()), 3);
    assert_eq!(store.usage().unwrap(), du(root.path()));
    for (image, seed) in [(&one, 1), (&two, 2)] {
        let seen = reader::read(&Disk::of(image));
        assert_eq!(seen[&b"app"[..]].data, noise(seed, 50_000));
        for len in [0_u32, 1, 2048, 2049, 4095, 4096, 4097, 6144, 6145, 300_000] {
            assert_eq!(seen[format!("etc/{len}").as_bytes()].data, noise(len, len + 3)[..len as usize], "{len}");
        }
        assert_eq!(seen[&b"etc/labelled"[..]].data, noise(9, 2000));
        common::fsck(&Disk::of(image));
    }
    store.remove("one", false).unwrap();
    assert_eq!(layers(root.path()), 2);
    assert_eq!(reader::read(&Disk::of(&two))[&b"app"[..]].data, noise(2, 50_000));
    store.remove("two", false).unwrap();
    assert_eq!(layers(root.path()), 0);
}

#[tokio::test]
async fn a_layer_that_comes_twice_is_one_device() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let layer = tar(&[Item::file("f", &noise(1, 10_000))]);
    let image = load(&store, &TestImage::new(vec![layer.clone(), base(), layer]), "twice").await;
    assert_eq!(image.data_paths.len(), 2);
    assert_eq!(reader::read(&Disk::of(&image))[&b"f"[..]].data, noise(1, 10_000));
}

#[tokio::test]
async fn what_is_saved_loads_to_the_same_images() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let (one, two) = (load(&store, &app(1), "one:1").await, load(&store, &app(2), "two:2").await);
    let mut archive = Vec::new();
    let names = ["one:1".to_owned(), "two:2".to_owned()];
    store.save(&names, &mut archive, &Silent).unwrap();
    let mut again = Vec::new();
    store.save(&names, &mut again, &Silent).unwrap();
    assert!(archive == again, "the same images give the same archive");
    // With and without the layout beside the list.
    let docker = {
        let mut out = tar::Builder::new(Vec::new());
        for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap() != Path::new("index.json") {
                let mut header = entry.header().clone();
                let path = entry.path().unwrap().into_owned();
                out.append_data(&mut header, path, &mut entry).unwrap();
            }
        }
        out.into_inner().unwrap()
    };
    for archive in [archive, docker] {
        let other = tempfile::tempdir().unwrap();
        let store = Store::open(other.path()).unwrap();
        let source = ArchiveSource::Reader(Box::new(std::io::Cursor::new(archive)));
        let loaded = store.load(source, None, Arc::new(Silent)).await.unwrap();
        for (was, is) in [&one, &two].into_iter().zip(&loaded) {
            assert_eq!((was.id, &was.names), (is.id, &is.names));
            assert!(Disk::of(was).bytes() == Disk::of(is).bytes());
        }
    }
}

#[tokio::test]
async fn a_damaged_layer_is_not_saved() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let image = load(&store, &app(1), "one").await;
    let mut bytes = std::fs::read(&image.data_paths[0]).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&image.data_paths[0], &bytes).unwrap();
    let error = store.save(&["one".to_owned()], std::io::sink(), &Silent).unwrap_err();
    assert!(matches!(error, SaveError::Damaged { .. }), "{error}");
    let error = store.check(&image, &Silent).unwrap_err();
    assert!(matches!(error, CheckError::Changed { .. }), "{error}");
    // One that is too short is not even run.
    std::fs::write(&image.data_paths[0], &bytes[..4096]).unwrap();
    let error = store.get("one").unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("4096 bytes"), "{error}");
}

#[tokio::test]
async fn any_changed_byte_of_an_image_is_found() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let image = load(&store, &app(1), "one").await;
    store.check(&image, &Silent).unwrap();
    let own = image.erofs_path.parent().unwrap();
    let layer = image.data_paths[0].parent().unwrap();
    let files = ["image.erofs", "passwd", "config.json"].map(|name| own.join(name));
    for path in files.into_iter().chain(["data", "rest.zst"].map(|name| layer.join(name))) {
        let good = std::fs::read(&path).unwrap();
        for at in [good.len() / 3, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let error = store.check(&image, &Silent).expect_err(&path.display().to_string()).to_string();
            assert!(error.contains("husk rmi --force"), "{}: {error}", path.display());
        }
        std::fs::write(&path, good).unwrap();
    }
    store.check(&image, &Silent).unwrap();
    assert_eq!(std::fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn only_images_that_nobody_needs_are_pruned() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let nameless = load(&store, &app(1), "app").await;
    let named = load(&store, &app(2), "app").await;
    let pinned = load(&store, &app(3), "pinned").await;
    let used = load(&store, &app(4), "used").await;
    let running = load(&store, &app(5), "running").await;
    store.pin(&pinned.id, true).unwrap();
    let lease = running.lease().unwrap();
    let ids = |store: &Store| store.list().unwrap().into_iter().map(|image| image.id).collect::<BTreeSet<_>>();
    let old = PruneOptions { older_than: Some(Duration::from_secs(3600)), ..PruneOptions::default() };
    assert!(store.prune(&old).unwrap().images.is_empty());
    let before = store.usage().unwrap().bytes;
    let pruned = store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(pruned.images, [(nameless.id, vec![])]);
    assert_eq!(before - store.usage().unwrap().bytes, pruned.bytes);
    let large = PruneOptions { named: true, keep_bytes: Some(u64::MAX), ..PruneOptions::default() };
    assert!(store.prune(&large).unwrap().images.is_empty());
    let all = PruneOptions { named: true, used: BTreeSet::from([used.id]), ..PruneOptions::default() };
    assert_eq!(store.prune(&all).unwrap().images, [(named.id, vec!["docker.io/library/app:latest".to_owned()])]);
    assert_eq!(ids(&store), BTreeSet::from([pinned.id, used.id, running.id]));
    drop(lease);
    store.pin(&pinned.id, false).unwrap();
    assert_eq!(store.prune(&PruneOptions { named: true, ..PruneOptions::default() }).unwrap().images.len(), 3);
    assert_eq!((ids(&store).len(), layers(root.path())), (0, 0));
    assert_eq!(store.usage().unwrap(), du(root.path()));
}

#[tokio::test]
async fn an_images_history_tells_what_each_layer_takes() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let test = app(1);
    let mut config: serde_json::Value = serde_json::from_slice(&test.config).unwrap();
    config["history"] = json!([
        {"created": "2026-01-01T00:00:00Z", "created_by": "ADD base"},
        {"created_by": "ENV A=b", "empty_layer": true},
        {"created_by": "COPY app", "comment": "mine"},
    ]);
    let test = TestImage::with_config(test.layers, test.plain, config.to_string().into_bytes());
    let image = load(&store, &test, "app").await;
    let steps = store.history(&image).unwrap();
    let shown: Vec<_> = steps.iter().map(|step| (step.created_by.as_str(), step.layer.is_some())).collect();
    assert_eq!(shown, [("COPY app", true), ("ENV A=b", false), ("ADD base", true)]);
    assert!(steps[2].layer.unwrap().1 > 300_000);
    // A config that tells nothing.
    let image = load(&store, &app(2), "other").await;
    assert_eq!(store.history(&image).unwrap().len(), 2);
}

#[tokio::test]
async fn a_retired_image_is_found_by_its_users_alone_and_goes_with_them() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let image = load(&store, &app(1), "app").await;
    store.tag(&image.id, &"app:2".parse().unwrap()).unwrap();
    let lease = image.lease().unwrap();
    let removed = store.retire("app:2").unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted), (2, None));
    let id = image.id.to_string();
    for name in ["app", "app:2", &id, &id[7..17]] {
        assert!(store.get(name).is_err() && store.summary(name).is_err(), "{name}");
    }
    assert!(store.list().unwrap().is_empty());
    assert_eq!(store.running(&id).unwrap().erofs_path, image.erofs_path);
    // Nobody takes it from its users.
    assert_eq!(store.sweep().unwrap(), []);
    assert!(store.prune(&PruneOptions::default()).unwrap().images.is_empty());
    drop(Store::open(root.path()).unwrap());
    // Loaded again, it is back.
    load(&store, &app(1), "again").await;
    assert_eq!(store.list().unwrap()[0].names, ["docker.io/library/again:latest"]);
    assert_eq!(store.retire(&id).unwrap().deleted, None);
    drop(lease);
    drop(Store::open(root.path()).unwrap());
    assert!(store.running(&id).is_err());
    assert_eq!(layers(root.path()), 0);
}

#[tokio::test]
async fn what_is_known_of_an_image_is_read_anew_when_another_takes_its_place() {
    let root = tempfile::tempdir().unwrap();
    let (store, other) = (Store::open(root.path()).unwrap(), Store::open(root.path()).unwrap());
    let first = load(&store, &app(1), "app").await;
    let listed = store.list().unwrap();
    assert_eq!(listed, other.list().unwrap());
    assert_eq!(listed[0].digests, [format!("docker.io/library/app@{}", first.digest)]);
    other.remove("app", true).unwrap();
    assert!(store.list().unwrap().is_empty());
    // The same config, and another manifest.
    let mut test = app(1);
    test.manifest.push(b' ');
    load(&other, &test, "app").await;
    let again = store.list().unwrap();
    assert_eq!((again[0].id, &again[0].digest), (first.id, &other.get("app").unwrap().digest));
    assert_ne!(again[0].digest, listed[0].digest);
}
