//! A huskd in this process, a registry in this process, and a client between them.
#![allow(dead_code, reason = "of what the tests of husk-image share, these use a part")]
#![allow(clippy::cast_possible_truncation, clippy::missing_panics_doc, unreachable_pub)]

#[path = "../../../../image/tests/common/archive.rs"]
pub mod archive;
#[path = "../../../../image/tests/common/layers.rs"]
pub mod layers;
#[path = "../../../../image/tests/common/server.rs"]
pub mod server;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use husk_cri::api::image_service_client::ImageServiceClient;
use husk_cri::api::{Image, ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest, RemoveImageRequest};
use husk_cri::config::Config;
use husk_cri::daemon::Daemon;
use husk_image::Store;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use archive::{TestImage, digest};
use layers::{Item, tar};
use server::{Reply, Request, Server};

pub type Client = ImageServiceClient<Channel>;

/// A daemon, and the registry that all names lead it to.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub config: Config,
    pub client: Client,
    pub registry: Registry,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(Registry::start(|_| None)).await
    }

    pub async fn start_with(registry: Registry) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            root: dir.path().join("root"),
            run: dir.path().join("run"),
            socket: dir.path().join("run/cri.sock"),
            registry_config_dir: dir.path().join("certs.d"),
            ..Config::default()
        };
        let all = config.registry_config_dir.join("_default");
        std::fs::create_dir_all(&all).unwrap();
        std::fs::write(all.join("hosts.toml"), format!("server = \"http://{}\"\n", registry.server.address)).unwrap();
        let daemon = Daemon::open(config.clone()).unwrap();
        tokio::spawn(daemon.serve(std::future::pending()));
        let client = connect(config.socket.clone()).await;
        Self { dir, config, client, registry }
    }

    /// As another process has it.
    pub fn store(&self) -> Store {
        Store::open(self.config.images()).unwrap()
    }

    pub async fn pull(&self, name: &str) -> Result<String, Status> {
        let request = PullImageRequest { image: spec(name), ..PullImageRequest::default() };
        Ok(self.client.clone().pull_image(request).await?.into_inner().image_ref)
    }

    pub async fn status(&self, name: &str) -> Option<Image> {
        let request = ImageStatusRequest { image: spec(name), verbose: false };
        let status = self.client.clone().image_status(request).await.unwrap().into_inner();
        assert!(status.info.is_empty());
        status.image
    }

    pub async fn list(&self) -> Vec<Image> {
        self.client.clone().list_images(ListImagesRequest::default()).await.unwrap().into_inner().images
    }

    pub async fn remove(&self, name: &str) -> Result<(), Status> {
        self.client.clone().remove_image(RemoveImageRequest { image: spec(name) }).await.map(drop)
    }

    /// Waits until nobody makes an image or a layer.
    pub async fn idle(&self) {
        let tmp = self.config.images().join("tmp");
        for _ in 0..600 {
            if std::fs::read_dir(&tmp).unwrap().next().is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("somebody is still at work in {}", tmp.display());
    }
}

pub async fn connect(socket: PathBuf) -> Client {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    ImageServiceClient::new(channel)
}

pub fn spec(name: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() })
}

/// Images by what they are asked for: `library/app:latest`, and anything by digest.
#[derive(Clone)]
pub struct Registry {
    pub server: Server,
    documents: Documents,
}

type Documents = Arc<Mutex<HashMap<String, Vec<u8>>>>;

impl Registry {
    /// `instead` answers first, if it has an answer.
    pub fn start(instead: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let documents = Documents::default();
        let shelf = Arc::clone(&documents);
        let server = Server::start(move |request| {
            if let Some(reply) = instead(request) {
                return reply;
            }
            let path = request.path.split('?').next().unwrap().strip_prefix("/v2/").unwrap();
            let key = match path.split_once("/manifests/") {
                Some((_, digest)) if digest.starts_with("sha256:") => digest.to_owned(),
                Some((repository, tag)) => format!("{repository}:{tag}"),
                None => path.rsplit('/').next().unwrap_or_default().to_owned(),
            };
            match shelf.lock().unwrap().get(&key) {
                Some(bytes) => Reply::ok(bytes),
                None => Reply::new("404 Not Found", &[], b""),
            }
        });
        Self { server, documents }
    }

    /// Whatever the bytes are.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        self.documents.lock().unwrap().insert(key.to_owned(), bytes.to_vec());
    }

    /// Gives an image a name; the digest of its manifest.
    pub fn push(&self, name: &str, image: &TestImage) -> String {
        for blob in image.layers.iter().chain([&image.config, &image.manifest]) {
            self.put(&digest(blob), blob);
        }
        self.put(name, &image.manifest);
        digest(&image.manifest)
    }

    /// The same by way of an index; its digest.
    pub fn push_index(&self, name: &str, image: &TestImage) -> String {
        self.push(name, image);
        let manifest = |bytes: &[u8], architecture: &str| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(bytes), "size": bytes.len(),
                "platform": {"os": "linux", "architecture": architecture},
            })
        };
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest(b"another", "arm64"), manifest(&image.manifest, "amd64")],
        });
        let index = index.to_string().into_bytes();
        self.put(&digest(&index), &index);
        self.put(name, &index);
        digest(&index)
    }
}

/// An image that differs from others by `word`, with this `config` section.
pub fn image_with(word: &str, config: &Value) -> TestImage {
    let plain = vec![tar(&[Item::file("word", word.as_bytes()), Item::file("noise", &noise(200_000))])];
    let layers = plain.iter().map(|layer| archive::gzip(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": plain.iter().map(|layer| digest(layer)).collect::<Vec<_>>()},
    });
    TestImage::with_config(layers, plain, config.to_string().into_bytes())
}

pub fn image(word: &str) -> TestImage {
    image_with(word, &json!({}))
}

fn noise(len: u32) -> Vec<u8> {
    (0..len / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}
