//! Archives of every kind into a store, and bad ones refused with nothing left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::archive::{TestImage, gzip, tar_of, write_dir};
use common::layers::{Item, What, raw_entry, tar};
use common::{Disk, reader};
use husk_image::{
    ArchiveError, ArchiveSource, BlobProblem, ContentError, Event, Image, LoadError, LookupError, Progress, Reference,
    RemoveError, Silent, Store,
};
use serde_json::json;

fn image() -> TestImage {
    let base = vec![
        Item::new("etc", What::Directory),
        Item::file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnginx:x:101:101::/nginx:/bin/false\n"),
        Item::file("etc/group", b"root:x:0:\nwww-data:x:33:nginx\n"),
        Item::file("bin/sh", b"#!").mode(0o755),
        Item::file("gone", b"x"),
    ];
    let top = vec![Item::new("gone", What::Whiteout), Item::file("new", &[7; 10_000])];
    TestImage::new(vec![tar(&base), tar(&top), tar(&[Item::new("bin/bash", What::Symlink("sh".to_owned()))])])
}

async fn load(store: &Store, source: ArchiveSource) -> Result<Vec<Image>, LoadError> {
    store.load(source, None, Arc::new(Silent)).await
}

fn stream(bytes: Vec<u8>) -> ArchiveSource {
    ArchiveSource::Reader(Box::new(std::io::Cursor::new(bytes)))
}

/// Nothing is being made, and there are so many images.
fn assert_clean(root: &Path, images: usize) {
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0, "tmp is empty");
    let layers = std::fs::read_dir(root.join("layers")).unwrap().count();
    assert_eq!(layers > 0, images > 0, "{layers} layers of {images} images");
    let dirs = std::fs::read_dir(root).unwrap().filter(|e| e.as_ref().unwrap().file_name().len() == 64).count();
    assert_eq!(dirs, images);
}

fn check(image: &Image, names: &[&str]) {
    assert_eq!(image.names, names);
    assert_eq!(image.config.created().as_deref(), Some("2026-01-02T03:04:05Z"));
    let seen = reader::read(&Disk::of(image));
    let paths: Vec<&str> = seen.keys().map(|path| std::str::from_utf8(path).unwrap()).collect();
    assert_eq!(paths, ["", "bin", "bin/bash", "bin/sh", "etc", "etc/group", "etc/passwd", "new"]);
    common::fsck(&Disk::of(image));
    let user = image.resolve_user("nginx").unwrap();
    assert_eq!((user.uid, user.gid, user.additional_gids, user.home.as_str()), (101, 101, vec![101, 33], "/nginx"));
}

#[tokio::test]
async fn every_kind_of_archive_gives_the_same_image() {
    let image = image();
    let annotated = json!({"io.containerd.image.name": "docker.io/library/app:1"});
    let oci = image.layout(&annotated);
    let by_ref_name = image.layout(&json!({"org.opencontainers.image.ref.name": "docker.io/library/app:1"}));
    let docker = image.docker_save(&["app:1"]);
    // Docker 25 and later: a layout without names of its own beside manifest.json.
    let mut both = image.layout(&json!({}));
    let layers: Vec<String> =
        image.layers.iter().map(|l| format!("blobs/sha256/{}", common::archive::hex(l))).collect();
    let config = format!("blobs/sha256/{}", common::archive::hex(&image.config));
    let listed = json!([{"Config": config, "RepoTags": ["app:1"], "Layers": layers}]).to_string().into_bytes();
    both.push(("manifest.json".to_owned(), listed.clone()));
    // The same without the layout.
    let new_docker: Vec<_> = both.iter().filter(|(name, _)| name != "index.json").cloned().collect();
    let files = tempfile::tempdir().unwrap();
    write_dir(&oci, &files.path().join("dir"));
    std::fs::write(files.path().join("a.tar"), tar_of(&oci)).unwrap();
    std::fs::write(files.path().join("a.tar.gz"), gzip(&tar_of(&docker))).unwrap();
    std::fs::write(files.path().join("a.tar.zst"), zstd::encode_all(&tar_of(&docker)[..], 1).unwrap()).unwrap();
    let path = |name: &str| ArchiveSource::Path(files.path().join(name));
    let mut disks = Vec::new();
    for source in [
        path("dir"),
        path("a.tar"),
        path("a.tar.gz"),
        path("a.tar.zst"),
        stream(tar_of(&by_ref_name)),
        stream(gzip(&tar_of(&docker))),
        stream(tar_of(&both)),
        stream(tar_of(&new_docker)),
    ] {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let shown = format!("{source:?}");
        let images = load(&store, source).await.unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].id.to_string(), image.id());
        check(&images[0], &["docker.io/library/app:1"]);
        assert_clean(root.path(), 1);
        disks.push(Disk::of(&images[0]).bytes());
    }
    assert!(disks.windows(2).all(|pair| pair[0] == pair[1]), "the same layers give the same disk");
}

#[tokio::test]
async fn names_ids_leases_and_removal() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let test = image();
    let name: Reference = "app".parse().unwrap();
    let loaded = store.load(stream(tar_of(&test.layout(&json!({})))), Some(&name), Arc::new(Silent)).await.unwrap();
    let id = loaded[0].id;
    for by in ["app", "docker.io/library/app:latest", &id.to_string(), &id.short(), &id.to_string()[..14]] {
        assert_eq!(store.get(by).unwrap().id, id, "{by}");
    }
    let by_digest = format!("app@{}", loaded[0].digest);
    assert_eq!(store.get(&by_digest).unwrap().id, id);
    let unknown = store.get("nothing").unwrap_err();
    assert!(unknown.to_string().contains("husk pull nothing"), "{unknown}");
    assert!(matches!(store.get("sha256:0"), Err(LookupError::Unknown(_))));

    store.tag(&id, &"other:2".parse().unwrap()).unwrap();
    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].names, ["docker.io/library/app:latest", "docker.io/library/other:2"]);
    assert!(listed[0].size > 0 && listed[0].size.is_multiple_of(512));

    assert!(matches!(store.remove(&id.to_string(), false), Err(RemoveError::SeveralNames { .. })));
    let removed = store.remove("other:2", false).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted), (1, None));
    let [first, second] = [(); 2].map(|()| store.get("app").unwrap().lease().unwrap());
    drop(first);
    assert!(matches!(store.remove("app", true), Err(RemoveError::InUse { .. })));
    assert_clean(root.path(), 1);
    drop(second);
    let image = store.get("app").unwrap();
    let removed = store.remove("app", false).unwrap();
    assert_eq!(removed.deleted, Some(id));
    assert!(image.lease().is_err());
    assert!(store.list().unwrap().is_empty());
    assert_clean(root.path(), 0);
}

#[derive(Default)]
struct Count(Mutex<Vec<String>>);

impl Progress for Count {
    fn event(&self, event: Event<'_>) {
        let kind = format!("{event:?}").split_whitespace().next().unwrap_or_default().to_owned();
        let mut kinds = self.0.lock().unwrap();
        if kinds.last() != Some(&kind) {
            kinds.push(kind);
        }
    }
}

#[tokio::test]
async fn loading_again_converts_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let archive = tar_of(&image().docker_save(&["app:1"]));
    let first = Arc::new(Count::default());
    store.load(stream(archive.clone()), None, first.clone()).await.unwrap();
    assert_eq!(first.0.lock().unwrap().first().unwrap(), "Resolved");
    assert_eq!(first.0.lock().unwrap().last().unwrap(), "Finished");
    let second = Arc::new(Count::default());
    store.load(stream(archive), None, second.clone()).await.unwrap();
    assert_eq!(*second.0.lock().unwrap(), ["Cached"]);
}

#[test]
fn what_a_crash_left_is_swept_and_what_is_at_work_is_not() {
    let root = tempfile::tempdir().unwrap();
    Store::open(root.path()).unwrap();
    let tmp = root.path().join("tmp");
    for name in ["image-dead", "image-live"] {
        std::fs::create_dir(tmp.join(name)).unwrap();
        std::fs::write(tmp.join(name).join("image.erofs"), b"half").unwrap();
    }
    let live = std::fs::File::open(tmp.join("image-live")).unwrap();
    live.lock().unwrap();
    Store::open(root.path()).unwrap();
    assert!(!tmp.join("image-dead").exists());
    assert!(tmp.join("image-live").exists());
}

/// One bad image: refused as expected, and the store is as before.
async fn refused(archive: Vec<u8>) -> LoadError {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let error = load(&store, stream(archive)).await.unwrap_err();
    assert_clean(root.path(), 0);
    assert!(store.list().unwrap().is_empty());
    assert!(!root.path().join("names.json").exists());
    error
}

fn problem(error: LoadError) -> BlobProblem {
    match error {
        LoadError::Content(ContentError::Layer { problem, .. })
        | LoadError::Archive(ArchiveError::Content(ContentError::Layer { problem, .. })) => *problem,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_corrupted_layer_is_refused() {
    for at in [1, 2, 3] {
        let good = image();
        let mut files = good.layout(&json!({}));
        let blob = &mut files[3 + at].1;
        let middle = blob.len() / 2;
        blob[middle] ^= 0x55;
        let error = refused(tar_of(&files)).await;
        let text = error.to_string();
        assert!(text.contains(&common::archive::digest(&good.layers[at - 1])), "{text}");
        assert!(matches!(problem(error), BlobProblem::Digest { .. }));
    }
}

#[tokio::test]
async fn a_layer_that_unpacks_to_something_else_is_refused() {
    let good = image();
    let mut plain = good.plain.clone();
    plain[0] = tar(&[Item::file("other", b"")]);
    let bad = TestImage::with_config(vec![gzip(&plain[0])], plain, good.config.clone());
    let error = refused(tar_of(&bad.layout(&json!({})))).await;
    assert!(error.to_string().contains("1 layers and its config 3"), "{error}");
    // In the old format only the diff_id tells.
    let mut files = good.docker_save(&["app:1"]);
    files[0].1 = tar(&[Item::file("other", b"")]);
    assert!(matches!(problem(refused(tar_of(&files)).await), BlobProblem::DiffId { .. }));
}

#[tokio::test]
async fn a_wrong_digest_of_manifest_or_config_is_refused() {
    for at in [2, 3] {
        let mut files = image().layout(&json!({}));
        files[at].1.push(b' ');
        let text = refused(tar_of(&files)).await.to_string();
        assert!(text.contains("its digest is sha256:"), "{text}");
    }
}

#[tokio::test]
async fn a_truncated_archive_is_refused() {
    let whole = tar_of(&image().docker_save(&["app:1"]));
    for part in [1, 300, 600, whole.len() / 3, whole.len() / 2, whole.len() - 2048] {
        refused(whole[..part].to_vec()).await;
    }
    let packed = gzip(&whole);
    refused(packed[..packed.len() - 9].to_vec()).await;
    assert!(matches!(refused(Vec::new()).await, LoadError::Archive(ArchiveError::Unknown(_))));
}

fn with_entry(path: &str, kind: tar::EntryType, link: &str) -> Vec<u8> {
    let mut layer = tar(&[Item::file("ok", b"1")]);
    layer.truncate(layer.len() - 1024);
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    let pax = [("path", path), ("linkpath", link)];
    let pax: Vec<_> = pax
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
        .collect();
    raw_entry(&mut layer, &mut header, &pax, &[]);
    layer.resize(layer.len() + 1024, 0);
    tar_of(&TestImage::new(vec![layer]).layout(&json!({})))
}

#[tokio::test]
async fn paths_that_leave_the_image_are_refused() {
    use tar::EntryType as Type;
    for (path, kind, link, part) in [
        ("../../etc/x", Type::Regular, "", "leads out of the image"),
        ("a/../../etc/x", Type::Directory, "", "leads out of the image"),
        ("x", Type::Link, "../../etc/shadow", "leads out of the image"),
        ("x", Type::Link, "etc/shadow", "which the image does not have"),
        ("ok/below", Type::Regular, "", "below something of the same layer"),
        ("/", Type::Symlink, "/etc", "root of the image"),
    ] {
        let error = refused(with_entry(path, kind, link)).await;
        let text = error.to_string();
        assert!(text.contains(part) && text.contains(&format!("\"{path}\"")), "{text}");
        assert!(text.contains("sha256:"), "{text}");
        assert!(matches!(problem(error), BlobProblem::Content(_)));
    }
}

#[tokio::test]
async fn links_that_lead_out_are_only_text() {
    let link = Item::new("evil", What::Symlink("/etc".to_owned()));
    let under = Item::file("evil/x", b"");
    // In one layer it is refused; over a lower layer the link gives way, as in an overlay mount.
    let text = refused(tar_of(&TestImage::new(vec![tar(&[link.clone(), under.clone()])]).layout(&json!({})))).await;
    assert!(text.to_string().contains("same layer"), "{text}");
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let image = TestImage::new(vec![tar(&[link]), tar(&[under])]);
    let images = load(&store, stream(tar_of(&image.layout(&json!({}))))).await.unwrap();
    assert_eq!(reader::read(&Disk::of(&images[0])).len(), 3);
}

#[tokio::test]
async fn a_decompression_bomb_is_stopped() {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    let path = [("path".to_owned(), b"zeros".to_vec())];
    let mut plain = Vec::new();
    header.set_size(600 << 20);
    raw_entry(&mut plain, &mut header, &path, &[]);
    // A stream that is never in memory: header, zeros, end.
    let body = std::io::Cursor::new(plain).chain(std::io::repeat(0).take((600 << 20) + 1024));
    let blob = zstd::encode_all(body, 1).unwrap();
    let config = image().config;
    let diff = common::archive::digest(b"whatever");
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let mut config = config.clone();
    config["rootfs"]["diff_ids"] = json!([diff]);
    let bomb = TestImage::with_config(vec![blob], vec![], config.to_string().into_bytes());
    let problem = problem(refused(tar_of(&bomb.layout(&json!({})))).await);
    assert!(matches!(problem, BlobProblem::Bomb { .. }), "{problem}");
}

#[tokio::test]
async fn an_image_for_another_machine_is_refused() {
    let plain = vec![tar(&[Item::file("x", b"")])];
    let mut config: serde_json::Value = serde_json::from_slice(&TestImage::new(plain.clone()).config).unwrap();
    config["architecture"] = json!("arm64");
    let image = TestImage::with_config(vec![gzip(&plain[0])], plain, config.to_string().into_bytes());
    let text = refused(tar_of(&image.layout(&json!({})))).await.to_string();
    assert!(text.contains("linux/arm64") && text.contains("linux/amd64"), "{text}");
}

#[tokio::test]
async fn what_is_no_archive_is_refused_with_a_way_to_make_one() {
    let text = refused(tar(&[Item::file("x", b"1")])).await.to_string();
    assert!(text.contains("docker save"), "{text}");
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let error = load(&store, ArchiveSource::Path("/does/not/exist.tar".into())).await.unwrap_err();
    assert!(error.to_string().contains("/does/not/exist.tar"), "{error}");
}
