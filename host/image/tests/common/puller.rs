//! A store, and how images get into it.

use std::path::PathBuf;
use std::sync::Arc;

use husk_image::credentials::{Credentials, Keychain, Secret};
use husk_image::{Image, PullError, PullOptions, Silent, Store};

use super::archive::TestImage;
use super::layers::{Item, tar};
use super::registry::USER;

pub struct Puller {
    root: tempfile::TempDir,
    pub store: Store,
}

impl Puller {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path().join("images")).unwrap();
        Self { root, store }
    }

    /// Where the files about a registry are.
    pub fn dir(&self, registry: &str) -> PathBuf {
        let dir = self.root.path().join("certs.d").join(registry);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Writes the `hosts.toml` of a registry.
    pub fn hosts(&self, registry: &str, text: &str) {
        std::fs::write(self.dir(registry).join("hosts.toml"), text).unwrap();
    }

    pub async fn pull(&self, name: &str) -> Result<Image, PullError> {
        self.pull_as(name, Keychain::Empty).await
    }

    pub async fn pull_as(&self, name: &str, keychain: Keychain) -> Result<Image, PullError> {
        let registry_config = self.root.path().join("certs.d");
        let options = PullOptions { registry_config, keychain, ..PullOptions::default() };
        self.store.pull(&name.parse().unwrap(), &options, Arc::new(Silent)).await
    }

    /// It fails, and nothing is left. The message.
    pub async fn refused(&self, name: &str, keychain: Keychain) -> String {
        let error = self.pull_as(name, keychain).await.unwrap_err();
        assert_eq!(std::fs::read_dir(self.root.path().join("images/tmp")).unwrap().count(), 0, "tmp is empty");
        assert!(self.store.list().unwrap().is_empty());
        let text = format!("{error} {error:?}");
        assert!(!text.contains(USER.1), "{text}");
        text
    }
}

/// [`USER`], for one registry.
pub fn user_of(registry: impl ToString) -> Keychain {
    given(registry, Credentials::Password { user: USER.0.into(), password: Secret::from(USER.1.to_owned()) })
}

pub fn given(registry: impl ToString, credentials: Credentials) -> Keychain {
    Keychain::Given { registry: registry.to_string(), credentials }
}

/// An image of one layer that does not compress and has so many bytes.
pub fn noisy_image(bytes: usize) -> TestImage {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(bytes)
    .collect();
    TestImage::new(vec![tar(&[Item::file("noise", &noise)])])
}
