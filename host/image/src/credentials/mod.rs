//! Who asks a registry: what was given with the request, or Docker's configuration file and its credential helpers.
//!
//! A host is only told what is meant for that very host: a mirror never learns the registry's password.

mod file;
mod given;
mod helper;

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

pub use file::AuthFile;
pub use given::AuthConfig;

/// Names the file, as for podman and skopeo.
pub const FILE_ENV: &str = "REGISTRY_AUTH_FILE";
/// Names the directory of Docker's configuration.
pub const DOCKER_DIR_ENV: &str = "DOCKER_CONFIG";

/// What nobody shall see in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How to introduce oneself to one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    #[default]
    Anonymous,
    /// A name and a password, or an access token in its place.
    Password { user: String, password: Secret },
    /// A token that goes into each request as it is.
    Bearer(Secret),
    /// A refresh token (Docker: identity token), which the registry's token server takes in place of a name and a
    /// password.
    Identity(Secret),
}

/// Name and password of the base64 of `name:password`, as Docker writes it: some tools pad it with NUL.
fn decode(auth: &str) -> Option<(String, Secret)> {
    let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), Secret(password.trim_end_matches('\0').to_owned())))
}

/// Credentials that cannot be had. None of the texts has a secret in it.
#[derive(Debug, Error)]
pub enum CredentialsError {
    #[error("{}: {cause}; mend the file, or remove it and log in again", path.display())]
    File { path: PathBuf, cause: String },
    #[error("{}: the entry of {registry} {problem}; log in again (`husk login {registry}`)", path.display())]
    Entry { path: PathBuf, registry: String, problem: &'static str },
    #[error(
        "the credentials given for {registry} are refused: the field `auth` {problem}; see the secret they come from"
    )]
    Given { registry: String, problem: &'static str },
    #[error(
        "the credential helper {program} {cause}; it is named for {registry} in {}: install it, or remove it there",
        path.display()
    )]
    Helper { program: String, registry: String, path: PathBuf, cause: String },
}

/// Where credentials come from.
#[derive(Debug, Clone, Default)]
pub enum Keychain {
    /// All hosts are asked anonymously.
    #[default]
    Empty,
    /// A file in the format of Docker's `config.json`; one that is not there is empty.
    File(PathBuf),
    /// What came with the request, for this registry alone.
    Given { registry: String, credentials: Credentials },
}

impl Keychain {
    /// The user's own: `$REGISTRY_AUTH_FILE`, else `config.json` in `$DOCKER_CONFIG`, else in `~/.docker`.
    #[must_use]
    pub fn of_user() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let docker = || set(DOCKER_DIR_ENV).or_else(|| set("HOME").map(|home| home.join(".docker")));
        set(FILE_ENV).or_else(|| docker().map(|dir| dir.join("config.json"))).map_or(Self::Empty, Self::File)
    }

    /// The file, where there is one to write to.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Empty | Self::Given { .. } => None,
        }
    }

    /// What to tell `host` (`name` or `name:port`) when asking for `repository`.
    ///
    /// # Errors
    /// When a file or helper that should know does not work; one that does not know the host is no error.
    pub async fn of(&self, host: &str, repository: &str) -> Result<Credentials, CredentialsError> {
        let host = registry_name(host);
        match self {
            Self::Empty => Ok(Credentials::Anonymous),
            Self::Given { registry, credentials } if registry_name(registry) == host => Ok(credentials.clone()),
            Self::Given { .. } => Ok(Credentials::Anonymous),
            Self::File(path) => {
                let file = AuthFile::read(path)?;
                match file.helper(host) {
                    Some(name) => helper::get(name, host, path).await,
                    None => file.find(host, repository),
                }
            }
        }
    }
}

/// A registry by the name that images have: without scheme and path, and Docker Hub by one name.
pub(crate) fn registry_name(text: &str) -> &str {
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = text.split('/').next().unwrap_or(text);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_given_is_for_one_registry_alone() {
        let credentials = Credentials::Password { user: "me".into(), password: Secret::from("x".to_owned()) };
        let given =
            Keychain::Given { registry: "https://index.docker.io/v1/".into(), credentials: credentials.clone() };
        for host in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
            assert_eq!(given.of(host, "library/app").await.unwrap(), credentials);
        }
        assert_eq!(given.of("mirror.example:5000", "library/app").await.unwrap(), Credentials::Anonymous);
        assert_eq!(Keychain::Empty.of("docker.io", "a").await.unwrap(), Credentials::Anonymous);
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::Password { user: "me".into(), password: Secret::from("hunter2".to_owned()) };
        assert_eq!(format!("{credentials:?}"), "Password { user: \"me\", password: *** }");
    }
}
