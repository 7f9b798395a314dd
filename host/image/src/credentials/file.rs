//! Docker's `config.json`, as far as it is about registries (containers-auth.json(5) is the same with longer keys).
//!
//! ```json
//! { "auths": { "registry.example": { "auth": "dXNlcjpwYXNzd29yZA==" } },
//!   "credHelpers": { "other.example": "pass" }, "credsStore": "secretservice" }
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Credentials, CredentialsError, Secret, registry_name};

/// Larger ones are not a person's.
const MAX_BYTES: u64 = 1 << 20;
/// How Docker writes the key of Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The file's content. Keys that are not about registries are kept as they are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct AuthFile {
    #[serde(skip)]
    path: PathBuf,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers", skip_serializing_if = "BTreeMap::is_empty")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore", skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Default, Serialize, Deserialize)]
struct Entry {
    /// Name and password with a colon between, in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    auth: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    password: String,
    #[serde(default, rename = "registrytoken", skip_serializing_if = "String::is_empty")]
    registry_token: String,
    #[serde(default, rename = "identitytoken", skip_serializing_if = "String::is_empty")]
    identity_token: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        [&self.auth, &self.username, &self.registry_token, &self.identity_token].iter().all(|text| text.is_empty())
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry { .. }")
    }
}

impl AuthFile {
    /// One that is not there is empty.
    ///
    /// # Errors
    /// When it cannot be read or is not of this format.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let refuse = |cause: String| CredentialsError::File { path: path.to_owned(), cause };
        let text = match std::fs::metadata(path).and_then(|metadata| match metadata.len() {
            ..=MAX_BYTES => std::fs::read(path),
            _ => Err(std::io::Error::other("it is larger than 1 MiB")),
        }) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(error) => return Err(refuse(format!("cannot be read: {error}"))),
        };
        // The place says enough; the text around it may be a password.
        let broken = |error: serde_json::Error| {
            refuse(format!("is no configuration of Docker's (line {}, column {})", error.line(), error.column()))
        };
        let file: Self = serde_json::from_slice(&text).map_err(broken)?;
        Ok(Self { path: path.to_owned(), ..file })
    }

    /// The credential helper for a registry (`docker.io`, `registry.example:5000`), which then knows better than the file.
    #[must_use]
    pub fn helper(&self, registry: &str) -> Option<&str> {
        let own = self.helpers.iter().find(|(name, _)| registry_name(name) == registry).map(|(_, helper)| helper);
        // Docker leaves an empty entry beside what it gives to the store.
        let here = self.auths.iter().any(|(key, entry)| registry_name(key) == registry && !entry.is_empty());
        own.or(self.store.as_ref().filter(|_| !here)).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// What the file itself says of a registry, or of the part of it that `repository` is in: the longest key counts.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Credentials, CredentialsError> {
        let whole = format!("{registry}/{repository}");
        let mut key = whole.as_str();
        loop {
            if let Some(entry) = self.auths.get(key) {
                return self.credentials(registry, entry);
            }
            match key.rsplit_once('/') {
                Some((shorter, _)) => key = shorter,
                None => break,
            }
        }
        // Docker's own keys may be URLs.
        let found = self.auths.iter().find(|(key, _)| is_url_of(key, registry));
        found.map_or(Ok(Credentials::Anonymous), |(_, entry)| self.credentials(registry, entry))
    }

    fn credentials(&self, registry: &str, entry: &Entry) -> Result<Credentials, CredentialsError> {
        let refuse =
            |problem| CredentialsError::Entry { path: self.path.clone(), registry: registry.to_owned(), problem };
        if !entry.registry_token.is_empty() {
            return Ok(Credentials::Bearer(Secret(entry.registry_token.clone())));
        }
        if !entry.identity_token.is_empty() {
            return Ok(Credentials::Identity(Secret(entry.identity_token.clone())));
        }
        if !entry.auth.is_empty() {
            let decoded = super::decode(&entry.auth);
            let (user, password) = decoded.ok_or_else(|| refuse("is not a name and a password in base64"))?;
            return Ok(Credentials::Password { user, password });
        }
        if entry.username.is_empty() {
            return Ok(Credentials::Anonymous);
        }
        Ok(Credentials::Password { user: entry.username.clone(), password: Secret(entry.password.clone()) })
    }

    /// Puts a name and a password in, over what was there for the registry.
    pub fn set(&mut self, registry: &str, user: &str, password: &Secret) {
        self.remove(registry);
        let auth = STANDARD.encode(format!("{user}:{}", password.reveal()));
        let key = if registry == "docker.io" { DOCKER_HUB } else { registry };
        self.auths.insert(key.to_owned(), Entry { auth, ..Entry::default() });
    }

    /// Every registry that the file itself knows.
    #[must_use]
    pub fn registries(&self) -> Vec<String> {
        self.auths.keys().map(|key| registry_name(key).to_owned()).collect()
    }

    /// Whether there was anything for the registry.
    pub fn remove(&mut self, registry: &str) -> bool {
        let before = self.auths.len();
        self.auths.retain(|key, _| key != registry && !is_url_of(key, registry));
        self.auths.len() < before
    }

    /// Writes the file, which only its owner can read, in one step.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<(), CredentialsError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(dir).and_then(|()| {
            // Mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|error| error.error).map(drop)
        });
        let refuse =
            |error| CredentialsError::File { path: self.path.clone(), cause: format!("cannot be written: {error}") };
        written.map_err(refuse)
    }
}

/// A key with a scheme or a version path; one with the path of a repository is not the whole registry's.
fn is_url_of(key: &str, registry: &str) -> bool {
    let is_url =
        key.contains("://") || matches!(key.split_once('/'), None | Some((_, "" | "v1" | "v1/" | "v2" | "v2/")));
    is_url && registry_name(key) == registry
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(text: &str) -> AuthFile {
        serde_json::from_str(text).unwrap()
    }

    fn user(credentials: &Credentials) -> String {
        match credentials {
            Credentials::Anonymous => "-".to_owned(),
            Credentials::Password { user, password } => format!("{user}:{}", password.reveal()),
            Credentials::Bearer(token) => format!("bearer {}", token.reveal()),
            Credentials::Identity(token) => format!("identity {}", token.reveal()),
        }
    }

    #[test]
    fn entries_are_found_by_every_form_of_their_key() {
        let file = file(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
                "plain.example": {"username": "u", "password": "p:w"},
                "plain.example/team/app": {"auth": "dGVhbTpwdw=="},
                "http://url.example:5000": {"auth": "dXJsOnB3"},
                "token.example": {"registrytoken": "t"},
                "refresh.example": {"auth": "dXNlcjo=", "identitytoken": "r"},
                "empty.example": {}
            }, "HttpHeaders": {"User-Agent": "x"}}"#,
        );
        for (registry, repository, expected) in [
            ("docker.io", "library/nginx", "hub:pw"),
            ("plain.example", "other", "u:p:w"),
            ("plain.example", "team/app", "team:pw"),
            ("plain.example", "team/app/part", "team:pw"),
            ("plain.example", "team/application", "u:p:w"),
            ("url.example:5000", "a", "url:pw"),
            ("url.example", "a", "-"),
            ("token.example", "a", "bearer t"),
            ("refresh.example", "a", "identity r"),
            ("empty.example", "a", "-"),
            ("unknown.example", "a", "-"),
        ] {
            assert_eq!(user(&file.find(registry, repository).unwrap()), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn broken_entries_are_refused_without_their_secret() {
        let file = file(r#"{"auths": {"a": {"auth": "!hunter2"}, "b": {"auth": "aHVudGVyMg=="}}}"#);
        for registry in ["a", "b"] {
            let error = file.find(registry, "x").unwrap_err();
            assert!(!format!("{error} {error:?} {file:?}").contains("hunter2"), "{error}");
            assert!(error.to_string().contains(&format!("`husk login {registry}`")), "{error}");
        }
    }

    #[test]
    fn helpers_are_for_their_registry_and_the_store_for_the_others() {
        let file = file(
            r#"{"auths": {"own.example": {"auth": "YTpi"}, "https://index.docker.io/v1/": {}},
                "credHelpers": {"help.example": "pass"}, "credsStore": "store"}"#,
        );
        assert_eq!(file.helper("help.example"), Some("pass"));
        assert_eq!(file.helper("docker.io"), Some("store"));
        assert_eq!(file.helper("unknown.example"), Some("store"));
        assert_eq!(file.helper("own.example"), None);
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        let mut auth = AuthFile::read(&path).unwrap();
        auth.others.insert("psFormat".to_owned(), "table".into());
        let secret = Secret("p:w".to_owned());
        auth.set("docker.io", "me", &secret);
        auth.set("one.example:5000", "you", &secret);
        auth.set("one.example:5000", "they", &secret);
        auth.write().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("https://index.docker.io/v1/") && text.contains("psFormat"), "{text}");
        let mut auth = AuthFile::read(&path).unwrap();
        assert_eq!(user(&auth.find("one.example:5000", "a").unwrap()), "they:p:w");
        assert!(auth.remove("docker.io") && !auth.remove("docker.io"));
        assert_eq!(user(&auth.find("docker.io", "a").unwrap()), "-");
        std::fs::write(&path, "{\"auths\": {\"a\": \"hunter2\"").unwrap();
        let error = AuthFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("config.json") && error.contains("line 1") && !error.contains("hunter2"), "{error}");
    }

    proptest! {
        #[test]
        fn no_name_and_password_is_changed_on_its_way(user in "[^:\\x00]{1,20}", password in "[^\\x00]{0,20}") {
            let mut auth = AuthFile::default();
            auth.set("r.example", &user, &Secret(password.clone()));
            let expected = Credentials::Password { user, password: Secret(password) };
            prop_assert_eq!(auth.find("r.example", "a").unwrap(), expected);
        }
    }
}
