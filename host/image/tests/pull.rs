//! Pulls from Debian's `docker-registry` on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use common::archive::{TestImage, digest};
use common::layers::{Item, What, tar};
use common::registry::{Registry, USER};
use common::{Disk, reader};
use husk_image::credentials::{Credentials, Keychain, Secret};
use husk_image::login::LoginError;
use husk_image::{
    BlobProblem, ContentError, Event, Image, Progress, PullError, PullOptions, Reference, RegistryError, Silent, Store,
};
use serde_json::json;

fn image() -> TestImage {
    let noise: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let layers = (0..5).map(|n| tar(&[Item::file(&format!("f{n}"), &noise[n..]), Item::new("d", What::Directory)]));
    TestImage::new(layers.collect())
}

/// Sends every registry to `address`.
fn mirror(dir: &Path, address: impl std::fmt::Display) -> PullOptions {
    std::fs::create_dir_all(dir.join("_default")).unwrap();
    std::fs::write(dir.join("_default/hosts.toml"), format!("server = \"http://{address}\"\n")).unwrap();
    PullOptions { registry_config: dir.to_owned(), ..PullOptions::default() }
}

#[derive(Default)]
struct Watch(Mutex<Vec<String>>);

impl Progress for Watch {
    fn event(&self, event: Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

struct Bench {
    registry: Registry,
    root: tempfile::TempDir,
    store: Store,
    options: PullOptions,
}

impl Bench {
    async fn new() -> Self {
        let registry = Registry::start().await;
        let root = tempfile::tempdir().unwrap();
        let options = mirror(&root.path().join("certs.d"), registry.address);
        let store = Store::open(root.path().join("images")).unwrap();
        Self { registry, root, store, options }
    }

    async fn pull(&self, name: &str) -> Result<Image, PullError> {
        self.store.pull(&name.parse().unwrap(), &self.options, Arc::new(Silent)).await
    }

    /// The pull fails and leaves nothing.
    async fn refused(&self, name: &str) -> PullError {
        let error = self.pull(name).await.unwrap_err();
        let images = self.root.path().join("images");
        assert_eq!(std::fs::read_dir(images.join("tmp")).unwrap().count(), 0, "tmp is empty");
        assert_eq!(std::fs::read_dir(images.join("layers")).unwrap().count(), 0, "no layer is left");
        assert!(self.store.list().unwrap().is_empty());
        error
    }
}

#[tokio::test]
async fn an_image_is_pulled_once_and_then_known() {
    let bench = Bench::new().await;
    let test = image();
    bench.registry.push("library/app", "latest", &test).await;
    let watch = Arc::new(Watch::default());
    let reference: Reference = "app".parse().unwrap();
    let image = bench.store.pull(&reference, &bench.options, watch.clone()).await.unwrap();
    assert_eq!((image.id.to_string(), image.digest.clone()), (test.id(), digest(&test.manifest)));
    assert_eq!(image.names, ["docker.io/library/app:latest"]);
    let seen = reader::read(&Disk::of(&image));
    assert_eq!(seen.len(), 7);
    assert_eq!(seen[&b"f3"[..]].data.len(), 1_200_000 - 3);
    common::fsck(&Disk::of(&image));
    let events = watch.0.lock().unwrap().join("\n");
    for layer in &test.layers {
        let whole = format!("digest: \"{}\", done: {1}, total: {1}", digest(layer), layer.len());
        assert!(events.contains(&whole), "{whole}");
    }
    assert!(events.starts_with("Resolved") && events.contains("Writing") && events.ends_with("}"));

    let again = Arc::new(Watch::default());
    bench.store.pull(&reference, &bench.options, again.clone()).await.unwrap();
    assert_eq!(*again.0.lock().unwrap(), ["Cached { name: \"app:latest\" }"]);

    // By digest, under another name: nothing is converted, and then no registry is needed.
    let by_digest = format!("app@{}", image.digest);
    assert_eq!(bench.pull(&by_digest).await.unwrap().id, image.id);
    for name in ["docker.io/library/app", "library/app:latest", "index.docker.io/library/app", &by_digest] {
        assert_eq!(bench.pull(name).await.unwrap().id, image.id, "{name}");
    }
    assert_eq!(bench.store.list().unwrap().len(), 1, "the same image by tag, digest and short name is one image");
    let nowhere = mirror(&bench.root.path().join("nowhere"), "127.0.0.1:1");
    let offline = bench.store.pull(&by_digest.parse().unwrap(), &nowhere, Arc::new(Silent)).await.unwrap();
    assert_eq!(offline.id, image.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_one_image_at_once_do_the_work_once() {
    let bench = Bench::new().await;
    let (one, other) = (image(), TestImage::new(image().plain[..3].to_vec()));
    bench.registry.push("library/app", "latest", &one).await;
    bench.registry.push("library/other", "latest", &other).await;
    let watch = Arc::new(Watch::default());
    // As processes of their own would: each with its own store.
    let pulls = ["app", "app", "other", "app"].map(|name| {
        let store = Store::open(bench.root.path().join("images")).unwrap();
        let (options, watch) = (bench.options.clone(), watch.clone());
        tokio::spawn(async move { store.pull(&name.parse().unwrap(), &options, watch).await.unwrap().id })
    });
    let mut ids = Vec::new();
    for pull in pulls {
        ids.push(pull.await.unwrap().to_string());
    }
    assert_eq!(ids, [one.id(), one.id(), other.id(), one.id()]);
    let events = watch.0.lock().unwrap();
    for layer in &one.layers {
        let whole = format!("digest: \"{}\", done: {1}, total: {1}", digest(layer), layer.len());
        assert_eq!(events.iter().filter(|event| event.contains(&whole)).count(), 1, "{whole}");
    }
}

#[tokio::test]
async fn loopback_registries_need_no_configuration() {
    let bench = Bench::new().await;
    bench.registry.push("some/app", "v1", &image()).await;
    let options = PullOptions { registry_config: "/nonexistent".into(), ..PullOptions::default() };
    let name = format!("{}/some/app:v1", bench.registry.address);
    let image = bench.store.pull(&name.parse().unwrap(), &options, Arc::new(Silent)).await.unwrap();
    assert_eq!(image.names, [name]);
}

#[tokio::test]
async fn an_index_gives_the_image_for_this_machine() {
    let bench = Bench::new().await;
    let test = image();
    bench.registry.push("library/app", "single", &test).await;
    let entry = |arch: &str, digest: String, size: usize| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
               "platform": {"os": "linux", "architecture": arch}})
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let ours = entry("amd64", digest(&test.manifest), test.manifest.len());
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [ours]});
    bench.registry.manifest("library/app", "multi", media_type, index.to_string().as_bytes()).await;
    assert_eq!(bench.pull("app:multi").await.unwrap().id.to_string(), test.id());
}

#[tokio::test]
async fn a_corrupted_or_truncated_layer_is_refused() {
    let bench = Bench::new().await;
    let test = image();
    bench.registry.push("library/app", "latest", &test).await;
    let stored = bench.registry.stored(&test.layers[2]);
    let good = std::fs::read(&stored).unwrap();
    let mut bad = good.clone();
    bad[1000] ^= 1;
    std::fs::write(&stored, &bad).unwrap();
    let error = bench.refused("app").await;
    let text = error.to_string();
    assert!(text.contains("app:latest") && text.contains(&digest(&test.layers[2])), "{text}");
    let PullError::Content(ContentError::Layer { problem, .. }) = error else { panic!("{error}") };
    assert!(matches!(*problem, BlobProblem::Digest { .. }));
    std::fs::write(&stored, &good[..good.len() / 2]).unwrap();
    let text = bench.refused("app").await.to_string();
    assert!(text.contains("app:latest"), "{text}");
    std::fs::write(&stored, [&good[..], b"more"].concat()).unwrap();
    bench.refused("app").await;
    std::fs::write(&stored, &good).unwrap();
    bench.pull("app").await.unwrap();
}

#[tokio::test]
async fn a_blob_that_the_registry_lost_is_named() {
    let bench = Bench::new().await;
    let test = image();
    bench.registry.push("library/app", "latest", &test).await;
    for blob in [&test.layers[1], &test.config] {
        let stored = bench.registry.stored(blob);
        let good = std::fs::read(&stored).unwrap();
        std::fs::remove_file(&stored).unwrap();
        let error = bench.refused("app").await;
        assert!(matches!(error, PullError::Registry(RegistryError::Incomplete { .. })), "{error}");
        assert!(error.to_string().contains(&digest(blob)), "{error}");
        std::fs::write(&stored, good).unwrap();
    }
    bench.pull("app").await.unwrap();
}

#[tokio::test]
async fn a_layer_with_a_path_that_leads_out_is_refused() {
    let bench = Bench::new().await;
    let bad = TestImage::new(vec![tar(&[Item::file("../../etc/x", b"")])]);
    bench.registry.push("library/evil", "latest", &bad).await;
    let text = bench.refused("evil").await.to_string();
    for part in ["evil:latest", "../../etc/x", &digest(&bad.layers[0])] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_plainly() {
    let bench = Bench::new().await;
    bench.registry.push("library/app", "latest", &image()).await;
    for name in ["nothing", "app:other", &format!("app@{}", digest(b"other"))] {
        let error = bench.refused(name).await;
        assert!(matches!(error, PullError::Registry(RegistryError::NotFound { .. })), "{error}");
        assert!(error.to_string().contains("name and tag"), "{error}");
    }
    let nowhere = mirror(&bench.root.path().join("nowhere"), "127.0.0.1:1");
    let error = bench.store.pull(&"app".parse().unwrap(), &nowhere, Arc::new(Silent)).await.unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::Unavailable { .. })), "{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn a_private_image_is_for_those_who_know_the_password() {
    let registry = Registry::start_private().await;
    let test = image();
    registry.push("team/app", "1", &test).await;
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path().join("images")).unwrap();
    let file = root.path().join("config.json");
    let keychain = |password: &str| {
        let mut auth = husk_image::credentials::AuthFile::read(&file).unwrap();
        auth.set(&registry.address.to_string(), USER.0, &Secret::from(password.to_owned()));
        auth.write().unwrap();
        Keychain::File(file.clone())
    };
    let pull = async |keychain: Keychain, name: &str| {
        let options = PullOptions { registry_config: "/nonexistent".into(), keychain, ..PullOptions::default() };
        store.pull(&name.parse().unwrap(), &options, Arc::new(Silent)).await
    };
    let name = format!("{}/team/app:1", registry.address);
    let given = |registry: &str| {
        let credentials = Credentials::Password { user: USER.0.into(), password: Secret::from(USER.1.to_owned()) };
        Keychain::Given { registry: registry.to_owned(), credentials }
    };
    let address = registry.address.to_string();
    let check = async |password: &str, name: &str| {
        let credentials = Credentials::Password { user: USER.0.into(), password: Secret::from(password.to_owned()) };
        husk_image::login::check(name, &credentials, Path::new("/nonexistent")).await
    };
    check(USER.1, &address).await.unwrap();
    let error = check("wrong", &address).await.unwrap_err();
    assert!(matches!(&error, LoginError::Refused { cause, .. } if cause.contains("401")), "{error}");
    assert!(matches!(check(USER.1, "no registry").await.unwrap_err(), LoginError::Name(_)));
    assert!(matches!(check(USER.1, "127.0.0.1:1").await.unwrap_err(), LoginError::Unavailable { .. }));
    for refused in [Keychain::Empty, keychain("wrong"), given("other.example")] {
        let error = pull(refused, &name).await.unwrap_err();
        assert!(matches!(&error, PullError::Registry(RegistryError::NotFound { .. })), "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains("husk login") && !text.contains("wrong") && !text.contains(USER.1), "{text}");
    }
    assert!(store.list().unwrap().is_empty());
    let image = pull(keychain(USER.1), &name).await.unwrap();
    assert_eq!(image.id.to_string(), test.id());
    store.remove(&name, false).unwrap();
    pull(given(&registry.address.to_string()), &name).await.unwrap();
}
