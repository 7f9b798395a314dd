//! Where a registry is really reached: containerd's `hosts.toml`, and Docker's certificate files.
//!
//! For the registry `docker.io` the directories `docker.io` and then `_default` below the configuration directory are
//! looked into, and the first one that says something is used; for `example.org:5000` these are `example.org_5000_`,
//! `example.org:5000` and `_default`. The configuration directory is `/etc/husk/certs.d`, or what
//! `HUSK_REGISTRY_CONFIG_DIR` says.
//!
//! ```toml
//! # Where to go when no host below has the image. Default: the registry itself.
//! server = "https://registry-1.docker.io"
//! # All fields of a host, for the server: ca = ..., skip_verify = ..., [header], ...
//!
//! # Tried in this order. "https://mirror.example/docker" is asked at /docker/v2/.
//! [host."https://mirror.example/docker"]
//! capabilities = ["pull", "resolve"]   # default: both; "push" and "referrers" are accepted and mean nothing here
//! ca = "mirror.pem"                    # a file or a list of files, PEM, relative to this file
//! client = [["own.cert", "own.key"]]   # or "both.pem", or ["a.pem", "b.pem"]: what the host is shown
//! skip_verify = false                  # accept any certificate
//! override_path = false                # the path of the host is where the API begins: add no /v2
//! dial_timeout = "3s"                  # default: 15s
//! proxy = "http://proxy.example:3128"  # default: what the environment says
//!
//! [host."https://mirror.example/docker".header]
//! x-tenant = "blue"                    # or a list; sent to this very host only
//! ```
//!
//! All but `header` also holds where the host sends us: for its token server and its
//! storage. Of several client certificates one is shown whose authority the host trusts.
//!
//! A directory without that file may have Docker's: `*.crt` are further authorities, `NAME.cert` and `NAME.key` what
//! the registry is shown.
//!
//! Plain HTTP is spoken where a URL says `http://`, and to registries on loopback of which nothing else is said. Other
//! keys are refused rather than overlooked.

mod certificates;
mod file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::HeaderMap;
use thiserror::Error;

use crate::credentials::Secret;

/// Overrides the configuration directory.
pub const DIR_ENV: &str = "HUSK_REGISTRY_CONFIG_DIR";
/// The configuration directory.
pub const DIR: &str = "/etc/husk/certs.d";
/// Where the API of a registry begins, unless its host says otherwise.
const API: &str = "/v2";

/// The configuration directory of this process.
#[must_use]
pub fn default_dir() -> PathBuf {
    std::env::var_os(DIR_ENV).filter(|dir| !dir.is_empty()).map_or_else(|| PathBuf::from(DIR), PathBuf::from)
}

/// A place to fetch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `host` or `host:port`.
    pub authority: String,
    /// Whether to speak plain HTTP.
    pub plain_http: bool,
    /// Where the API begins: `/v2`, `/prefix/v2`, or nothing.
    pub path: String,
    /// Whether names may be resolved there.
    pub resolve: bool,
    /// Whether blobs may be fetched there.
    pub pull: bool,
    /// Whether any certificate will do.
    pub skip_verify: bool,
    /// Certificates of further authorities, PEM.
    pub ca: Vec<Vec<u8>>,
    /// Certificates and their keys, PEM, of which the host is shown the one it knows the authority of.
    pub clients: Vec<Secret>,
    /// What goes with every request. The values are marked as sensitive.
    pub headers: HeaderMap,
    /// How long connecting may take.
    pub connect_timeout: Option<Duration>,
    /// URL of a proxy. It may have a password in it.
    pub proxy: Option<Secret>,
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
#[error("registry configuration {path}: {problem}; see the documentation of hosts.toml for what husk reads")]
pub struct HostsError {
    path: PathBuf,
    problem: String,
}

/// The hosts to ask for images of `registry`, in order.
///
/// # Errors
/// When a file is there and cannot be used as it stands.
pub fn hosts(dir: &Path, registry: &str) -> Result<Vec<Host>, HostsError> {
    for name in directory_names(registry) {
        let dir = dir.join(name);
        let path = dir.join("hosts.toml");
        let refuse = |problem: String| HostsError { path: path.clone(), problem };
        match std::fs::read_to_string(&path) {
            Ok(text) => return file::parse(&text, registry, &dir).map_err(refuse),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(refuse(format!("it cannot be read: {error}"))),
        }
        let refuse = |problem: String| HostsError { path: dir.clone(), problem };
        if let Some(found) = certificates::read(&dir).map_err(refuse)? {
            let host = Host { ca: found.ca, clients: found.clients, plain_http: false, ..registry_itself(registry) };
            return Ok(vec![host]);
        }
    }
    Ok(vec![registry_itself(registry)])
}

fn directory_names(registry: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((host, port)) = registry.rsplit_once(':') {
        names.push(format!("{host}_{port}_"));
    }
    names.push(registry.to_owned());
    names.push("_default".to_owned());
    names
}

fn registry_itself(registry: &str) -> Host {
    Host {
        authority: reachable(registry).to_owned(),
        plain_http: is_loopback(registry),
        path: API.to_owned(),
        resolve: true,
        pull: true,
        skip_verify: false,
        ca: Vec::new(),
        clients: Vec::new(),
        headers: HeaderMap::new(),
        connect_timeout: None,
        proxy: None,
    }
}

/// Docker Hub answers under another name than its images have.
fn reachable(authority: &str) -> &str {
    if authority == "docker.io" { "index.docker.io" } else { authority }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((_, "443")) => return false,
        Some((host, _)) => host,
        None => authority,
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_file_of_a_registry_is_preferred_to_the_default_one() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, server: &str| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("hosts.toml"), format!("server = \"{server}\"")).unwrap();
        };
        let first = |registry: &str| hosts(dir.path(), registry).unwrap().remove(0).authority;
        assert_eq!(first("ghcr.io"), "ghcr.io");
        write("_default", "http://default");
        write("example.org:5000", "http://plain");
        assert_eq!(first("example.org:5000"), "plain");
        write("example.org_5000_", "http://own");
        assert_eq!(first("ghcr.io"), "default");
        assert_eq!(first("example.org:5000"), "own");
        assert_eq!(first("example.org"), "default");
    }

    #[test]
    fn certificates_as_docker_keeps_them_are_found_where_no_file_says_more() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("127.0.0.1:5000");
        std::fs::create_dir(&own).unwrap();
        assert!(hosts(dir.path(), "127.0.0.1:5000").unwrap()[0].plain_http, "an empty directory says nothing");
        for (name, text) in [("b.crt", "B"), ("a.crt", "A"), ("own.cert", "CERT"), ("own.key", "KEY"), ("README", "x")]
        {
            std::fs::write(own.join(name), text).unwrap();
        }
        let host = hosts(dir.path(), "127.0.0.1:5000").unwrap().remove(0);
        assert_eq!((host.authority.as_str(), host.plain_http), ("127.0.0.1:5000", false));
        assert_eq!(host.ca, [b"A".to_vec(), b"B".to_vec()]);
        assert_eq!(host.clients[0].reveal(), "CERT\nKEY");
        assert!(!format!("{host:?}").contains("KEY"));
        std::fs::remove_file(own.join("own.key")).unwrap();
        let error = hosts(dir.path(), "127.0.0.1:5000").unwrap_err().to_string();
        assert!(error.contains("own.key"), "{error}");
        std::fs::write(own.join("hosts.toml"), "").unwrap();
        assert!(hosts(dir.path(), "127.0.0.1:5000").unwrap()[0].plain_http);
    }

    #[test]
    fn loopback_is_plain_and_everything_else_is_not() {
        for (authority, plain) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.0.0.1:443", false),
            ("localhost.example.org", false),
            ("docker.io", false),
        ] {
            assert_eq!(registry_itself(authority).plain_http, plain, "{authority}");
        }
    }
}
