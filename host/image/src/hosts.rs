//! Where a registry is really reached: a subset of containerd's `hosts.toml`.
//!
//! For the registry `docker.io` the files `docker.io/hosts.toml` and then `_default/hosts.toml`
//! below the configuration directory are looked for, and the first one there is used; for
//! `example.org:5000` also `example.org_5000_/hosts.toml`. The directory is
//! `/etc/husk/certs.d`, or what `HUSK_REGISTRY_CONFIG_DIR` says.
//!
//! ```toml
//! # Where to go when no host below has the image. Default: the registry itself.
//! server = "https://registry-1.docker.io"
//!
//! # Tried in this order.
//! [host."http://127.0.0.1:5000"]
//! capabilities = ["pull", "resolve"]   # default: both; "push" is accepted and means nothing here
//! ca = "/etc/husk/mirror.pem"          # a file or a list of files, PEM, relative to this file
//! skip_verify = false                  # accept any certificate
//! ```
//!
//! Plain HTTP is spoken where a URL says `http://`, and to registries on loopback without a file.
//! Other keys of containerd's (`client`, `header`, `override_path`, ...) and hosts with a path are
//! refused rather than overlooked.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// Overrides the configuration directory.
pub const DIR_ENV: &str = "HUSK_REGISTRY_CONFIG_DIR";
/// The configuration directory.
pub const DIR: &str = "/etc/husk/certs.d";

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
    /// Whether names may be resolved there.
    pub resolve: bool,
    /// Whether blobs may be fetched there.
    pub pull: bool,
    /// Whether any certificate will do.
    pub skip_verify: bool,
    /// Certificates of further authorities, PEM.
    pub ca: Vec<Vec<u8>>,
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
#[error("registry configuration {path}: {problem}; see the documentation of hosts.toml for what husk reads")]
pub struct HostsError {
    path: PathBuf,
    problem: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostsFile {
    server: Option<String>,
    /// Kept in the order of the file.
    #[serde(default)]
    host: toml::Table,
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    skip_verify: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct HostTable {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    skip_verify: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

/// The hosts to ask for images of `registry`, in order.
///
/// # Errors
/// When a file is there and cannot be used as it stands.
pub fn hosts(dir: &Path, registry: &str) -> Result<Vec<Host>, HostsError> {
    for name in directory_names(registry) {
        let path = dir.join(name).join("hosts.toml");
        let refuse = |problem: String| HostsError { path: path.clone(), problem };
        match std::fs::read_to_string(&path) {
            Ok(text) => return parse(&text, registry, path.parent().unwrap_or(dir)).map_err(refuse),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(refuse(format!("it cannot be read: {error}"))),
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
    // Docker Hub answers under another name than its images have.
    let authority = if registry == "docker.io" { "index.docker.io" } else { registry };
    Host {
        authority: authority.to_owned(),
        plain_http: is_loopback(registry),
        resolve: true,
        pull: true,
        skip_verify: false,
        ca: Vec::new(),
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((_, "443")) => return false,
        Some((host, _)) => host,
        None => authority,
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn parse(text: &str, registry: &str, dir: &Path) -> Result<Vec<Host>, String> {
    let file: HostsFile = toml::from_str(text).map_err(|error| error.to_string().trim().replace('\n', " "))?;
    let mut hosts = Vec::new();
    for (url, table) in file.host {
        let table: HostTable =
            table.try_into().map_err(|error| format!("host \"{url}\": {}", error.to_string().trim()))?;
        hosts.push(host(&url, table, dir)?);
    }
    let server = HostTable { capabilities: file.capabilities, ca: file.ca, skip_verify: file.skip_verify };
    hosts.push(match file.server {
        Some(url) => host(&url, server, dir)?,
        None => registry_itself(registry),
    });
    Ok(hosts)
}

fn host(url: &str, table: HostTable, dir: &Path) -> Result<Host, String> {
    let (plain_http, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ if url.contains("://") => return Err(format!("\"{url}\" is neither http:// nor https://")),
        _ => (false, url),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !matches!(path, "" | "v2" | "v2/") {
        return Err(format!("\"{url}\" has a path, which is not supported"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if authority.is_empty() || !authority.bytes().all(plain) {
        return Err(format!("\"{url}\" has no usable host name"));
    }
    let capabilities = table.capabilities.unwrap_or_else(|| vec!["pull".to_owned(), "resolve".to_owned()]);
    if let Some(other) = capabilities.iter().find(|name| !["pull", "resolve", "push"].contains(&name.as_str())) {
        return Err(format!("\"{other}\" is not a capability: there are pull, resolve and push"));
    }
    let files = match table.ca {
        None => Vec::new(),
        Some(OneOrMany::One(file)) => vec![file],
        Some(OneOrMany::Many(files)) => files,
    };
    let read = |file: PathBuf| {
        let file = dir.join(file);
        std::fs::read(&file).map_err(|error| format!("the certificate {} cannot be read: {error}", file.display()))
    };
    Ok(Host {
        authority: authority.to_owned(),
        plain_http,
        resolve: capabilities.iter().any(|name| name == "resolve"),
        pull: capabilities.iter().any(|name| name == "pull"),
        skip_verify: table.skip_verify.unwrap_or(false),
        ca: files.into_iter().map(read).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorities(text: &str) -> Vec<(String, bool)> {
        let hosts = parse(text, "docker.io", Path::new("/nowhere")).unwrap();
        hosts.into_iter().map(|host| (host.authority, host.plain_http)).collect()
    }

    #[test]
    fn hosts_are_tried_in_the_order_of_the_file_and_the_server_last() {
        let text = "server = \"https://s.example\"\n[host.\"http://z:5000\"]\n[host.\"https://a/v2\"]\n";
        assert_eq!(
            authorities(text),
            [("z:5000".to_owned(), true), ("a".to_owned(), false), ("s.example".to_owned(), false)]
        );
        assert_eq!(authorities(""), [("index.docker.io".to_owned(), false)]);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, part) in [
            ("[host.\"https://a\"]\noverride_path = true", "override_path"),
            ("[host.\"https://a\".header]\nx = \"y\"", "header"),
            ("srever = \"https://a\"", "srever"),
            ("[host.\"https://a/b\"]", "path"),
            ("[host.\"ftp://a\"]", "ftp"),
            ("server = \"https://a b\"", "host name"),
            ("[host.\"https://a\"]\ncapabilities = [\"delete\"]", "delete"),
            ("[host.\"https://a\"]\nca = \"missing.pem\"", "missing.pem"),
        ] {
            let error = parse(text, "docker.io", Path::new("/nowhere")).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

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
        write("example.org_5000_", "http://own");
        assert_eq!(first("ghcr.io"), "default");
        assert_eq!(first("example.org:5000"), "own");
        assert_eq!(first("example.org"), "default");
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
