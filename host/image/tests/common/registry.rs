//! Debian's `docker-registry` on a free loopback port, and a pusher of a few requests.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::archive::{TestImage, digest, hex};

/// Name and password of a private registry's only user, and what htpasswd(1) makes of them.
pub const USER: (&str, &str) = ("me", "se:cret");
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuWqeDdmk0qhXLYvA33lbC9M700ynI2Oa\n";

pub struct Registry {
    pub address: SocketAddr,
    private: bool,
    dir: Arc<tempfile::TempDir>,
    process: Child,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Registry {
    pub async fn start() -> Self {
        Self::run(Arc::new(tempfile::tempdir().unwrap()), "", "").await
    }

    /// Which answers nobody but [`USER`].
    pub async fn start_private() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let users = Self::only_for_the_user(&dir);
        let mut registry = Self::run(dir, "", &users).await;
        registry.private = true;
        registry
    }

    /// Another one with the same images: `http` are lines of its section of that name, `others` further sections.
    pub async fn beside(&self, http: &str, others: &str) -> Self {
        Self::run(Arc::clone(&self.dir), http, others).await
    }

    /// Another one with the same images, for [`USER`].
    pub async fn private_beside(&self, http: &str) -> Self {
        self.beside(http, &Self::only_for_the_user(&self.dir)).await
    }

    fn only_for_the_user(dir: &tempfile::TempDir) -> String {
        let users = dir.path().join("htpasswd");
        std::fs::write(&users, HTPASSWD).unwrap();
        format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display())
    }

    async fn run(dir: Arc<tempfile::TempDir>, http: &str, others: &str) -> Self {
        // The pusher's own need; the first one of the process stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = dir.path().join(format!("{}.yml", address.port()));
        let storage = dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {address}\n{http}\n{others}",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry runs: install docker-registry");
        let mut registry = Self { address, private: false, dir, process };
        for _ in 0..600 {
            if TcpStream::connect(address).is_ok() {
                return registry;
            }
            assert!(registry.process.try_wait().unwrap().is_none(), "docker-registry ends at once: {config:?}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("docker-registry did not listen on {address}");
    }

    /// As the user, where only that one is answered.
    fn signed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        if self.private { request.basic_auth(USER.0, Some(USER.1)) } else { request }
    }

    async fn blob(&self, repository: &str, bytes: &[u8]) {
        let client = reqwest::Client::new();
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let begun = self.signed(client.post(url)).send().await.unwrap().error_for_status().unwrap();
        let mut place: reqwest::Url = begun.headers()["location"].to_str().unwrap().parse().unwrap();
        place.query_pairs_mut().append_pair("digest", &digest(bytes));
        self.signed(client.put(place).body(bytes.to_vec())).send().await.unwrap().error_for_status().unwrap();
    }

    pub async fn manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        let put = reqwest::Client::new().put(url).header("Content-Type", media_type).body(bytes.to_vec());
        self.signed(put).send().await.unwrap().error_for_status().unwrap();
    }

    pub async fn push(&self, repository: &str, tag: &str, image: &TestImage) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.blob(repository, blob).await;
        }
        self.manifest(repository, tag, "application/vnd.oci.image.manifest.v1+json", &image.manifest).await;
    }

    /// Where the registry keeps a blob.
    pub fn stored(&self, blob: &[u8]) -> PathBuf {
        let hex = hex(blob);
        self.dir.path().join(format!("storage/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}
