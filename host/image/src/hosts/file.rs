//! The file `hosts.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{API, Host, certificates, reachable, registry_itself};
use crate::credentials::Secret;

/// Headers that a request cannot do without, or that would make another one of it.
const OWN_HEADERS: [HeaderName; 6] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::RANGE,
    header::ACCEPT_ENCODING,
];

/// Fields of a host; at the top level those of the server.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct HostTable {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany<PathBuf>>,
    client: Option<Clients>,
    skip_verify: Option<bool>,
    #[serde(default)]
    header: toml::Table,
    #[serde(default)]
    override_path: bool,
    dial_timeout: Option<String>,
    proxy: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(PathBuf),
    Many(Vec<ClientFiles>),
}

/// An empty name of a key is that of the certificate.
#[derive(Deserialize)]
#[serde(untagged)]
enum ClientFiles {
    Both(PathBuf),
    Pair(PathBuf, PathBuf),
}

impl<T> OneOrMany<T> {
    fn list(this: Option<Self>) -> Vec<T> {
        match this {
            None => Vec::new(),
            Some(Self::One(one)) => vec![one],
            Some(Self::Many(many)) => many,
        }
    }
}

/// The hosts that the file in `dir` names for `registry`.
pub(super) fn parse(text: &str, registry: &str, dir: &Path) -> Result<Vec<Host>, String> {
    let mut file: toml::Table = toml::from_str(text).map_err(|error| {
        // Not the line itself: it may have a secret in it.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("line {}: {}", before.lines().count().max(1), error.message())
    })?;
    let mut hosts = Vec::new();
    match file.remove("host") {
        None => {}
        Some(toml::Value::Table(tables)) => {
            for (url, table) in tables {
                let table = fields(table).map_err(|problem| format!("host \"{url}\": {problem}"))?;
                let named = at(&url, table.override_path)?;
                hosts.push(with(named, table, dir).map_err(|problem| format!("host \"{url}\": {problem}"))?);
            }
        }
        Some(_) => return Err("\"host\" is no table: write [host.\"https://mirror.example\"]".to_owned()),
    }
    let server = match file.remove("server") {
        None => None,
        Some(toml::Value::String(url)) => Some(url),
        Some(_) => return Err("\"server\" is not a text".to_owned()),
    };
    let table = fields(toml::Value::Table(file))?;
    let own = match server {
        Some(url) => at(&url, table.override_path)?,
        None => {
            let tls = table.ca.is_some() || table.client.is_some() || table.skip_verify.is_some();
            let own = registry_itself(registry);
            Host { plain_http: own.plain_http && !tls, ..own }
        }
    };
    hosts.push(with(own, table, dir)?);
    Ok(hosts)
}

fn fields(table: toml::Value) -> Result<HostTable, String> {
    table.try_into().map_err(|error: toml::de::Error| error.message().trim().replace('\n', " "))
}

/// The place that a URL names.
fn at(url: &str, override_path: bool) -> Result<Host, String> {
    let (plain_http, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ if url.contains("://") => return Err(format!("\"{url}\" is neither http:// nor https://")),
        _ => (false, url),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if authority.is_empty() || !authority.bytes().all(plain) {
        return Err(format!("\"{url}\" has no usable host name"));
    }
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let plain = |part: &&str| {
        !matches!(*part, "." | "..") && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte))
    };
    if !parts.iter().all(plain) {
        return Err(format!("\"{url}\" has no usable path"));
    }
    if !override_path && parts.last() != Some(&&API[1..]) {
        parts.push(&API[1..]);
    }
    let path = parts.iter().map(|part| format!("/{part}")).collect();
    Ok(Host { plain_http, path, ..registry_itself(reachable(authority)) })
}

fn with(host: Host, table: HostTable, dir: &Path) -> Result<Host, String> {
    let mut capabilities = table.capabilities.unwrap_or_default();
    capabilities.iter_mut().for_each(|name| name.make_ascii_lowercase());
    let known = ["pull", "resolve", "push", "referrers"];
    if let Some(other) = capabilities.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("\"{other}\" is not a capability: there are {}", known.join(", ")));
    }
    let may = |what: &str| capabilities.is_empty() || capabilities.iter().any(|name| name == what);
    let clients = match table.client {
        None => Vec::new(),
        Some(Clients::One(both)) => vec![ClientFiles::Both(both)],
        Some(Clients::Many(files)) => files,
    };
    let clients: Vec<_> = clients
        .into_iter()
        .map(|files| match files {
            ClientFiles::Both(both) => (dir.join(both), None),
            ClientFiles::Pair(certificate, key) if key.as_os_str().is_empty() => (dir.join(certificate), None),
            ClientFiles::Pair(certificate, key) => (dir.join(certificate), Some(dir.join(key))),
        })
        .collect();
    Ok(Host {
        resolve: may("resolve"),
        pull: may("pull"),
        skip_verify: table.skip_verify.unwrap_or(false),
        ca: OneOrMany::list(table.ca)
            .into_iter()
            .map(|file| certificates::authority(&dir.join(file)))
            .collect::<Result<_, _>>()?,
        clients: clients.iter().map(certificates::client).collect::<Result<_, _>>()?,
        headers: headers(table.header)?,
        connect_timeout: table.dial_timeout.as_deref().map(timeout).transpose()?,
        proxy: table.proxy.map(proxy).transpose()?,
        ..host
    })
}

fn headers(table: toml::Table) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (key, values) in table {
        let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| format!("\"{key}\" is no name of a header"))?;
        if OWN_HEADERS.contains(&name) {
            return Err(format!("the header \"{key}\" is set by husk itself"));
        }
        let values: OneOrMany<String> =
            values.try_into().map_err(|_| format!("the header \"{key}\" is neither a text nor a list of texts"))?;
        for text in OneOrMany::list(Some(values)) {
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| format!("the header \"{key}\" has characters that no header can have"))?;
            value.set_sensitive(true);
            headers.append(&name, value);
        }
    }
    Ok(headers)
}

fn timeout(text: &str) -> Result<Duration, String> {
    let refuse = |cause: &dyn std::fmt::Display| format!("dial_timeout \"{text}\": {cause}; write it as \"3s\"");
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(refuse(&"it leaves no time")),
        Ok(timeout) => Ok(timeout),
        Err(error) => Err(refuse(&error)),
    }
}

/// No text of the URL in the message: there may be a password in it.
fn proxy(url: String) -> Result<Secret, String> {
    let refuse = || "proxy is no URL of a proxy: write it as \"http://proxy.example:3128\"".to_owned();
    let parsed = reqwest::Url::parse(&url).map_err(|_| refuse())?;
    let plain = matches!(parsed.path(), "" | "/") && parsed.query().is_none() && parsed.fragment().is_none();
    match parsed.scheme() {
        "http" | "https" | "socks5" | "socks5h" if plain && parsed.has_host() => {
            reqwest::Proxy::all(&url).map(|_| Secret::from(url)).map_err(|_| refuse())
        }
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Host> {
        parse(text, "docker.io", Path::new("/nowhere")).unwrap()
    }

    fn authorities(text: &str) -> Vec<(String, bool)> {
        all(text).into_iter().map(|host| (host.authority, host.plain_http)).collect()
    }

    #[test]
    fn hosts_are_tried_in_the_order_of_the_file_and_the_server_last() {
        let text = "server = \"https://s.example\"\n[host.\"http://z:5000\"]\n[host.\"https://a/v2\"]\n";
        assert_eq!(
            authorities(text),
            [("z:5000".to_owned(), true), ("a".to_owned(), false), ("s.example".to_owned(), false)]
        );
        assert_eq!(authorities(""), [("index.docker.io".to_owned(), false)]);
        assert_eq!(authorities("server = \"https://docker.io\""), [("index.docker.io".to_owned(), false)]);
    }

    #[test]
    fn a_path_is_where_the_api_begins() {
        for (url, fields, path) in [
            ("https://a", "", "/v2"),
            ("https://a/", "", "/v2"),
            ("https://a/v2/", "", "/v2"),
            ("https://a/x//y", "", "/x/y/v2"),
            ("https://a/x/v2", "", "/x/v2"),
            ("https://a/x/", "override_path = true", "/x"),
            ("https://a", "override_path = true", ""),
        ] {
            assert_eq!(all(&format!("[host.\"{url}\"]\n{fields}"))[0].path, path, "{url} {fields}");
        }
    }

    #[test]
    fn every_field_means_something() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.pem", "b.pem", "c.cert", "c.key"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let text = r#"
            ca = "a.pem"
            dial_timeout = "1m1.5s"
            [header]
            x-server = "yes"
            [host."m.example"]
            capabilities = ["Pull", "referrers"]
            ca = ["a.pem", "b.pem"]
            client = [["c.cert", "c.key"]]
            skip_verify = true
            proxy = "socks5h://me:hunter2@p.example:1080"
            [host."m.example".header]
            x-one = "hunter2"
            X-Many = ["a", "b"]
            [host.two]
            client = [["a.pem", ""], "b.pem"]
            [host.one]
            client = "a.pem"
        "#;
        let hosts = parse(text, "r.example", dir.path()).unwrap();
        let [mirror, two, one, server] = &hosts[..] else { panic!("{hosts:?}") };
        assert_eq!((mirror.pull, mirror.resolve, mirror.skip_verify), (true, false, true));
        assert_eq!(mirror.ca, [b"a.pem".to_vec(), b"b.pem".to_vec()]);
        assert_eq!(mirror.clients[0].reveal(), "c.cert\nc.key");
        assert_eq!(mirror.headers["x-one"], "hunter2");
        assert_eq!(mirror.headers.get_all("x-many").iter().count(), 2);
        let shown = |host: &Host| host.clients.iter().map(|pem| pem.reveal().to_owned()).collect::<Vec<_>>();
        assert_eq!((shown(two), shown(one)), (vec!["a.pem".to_owned(), "b.pem".to_owned()], vec!["a.pem".to_owned()]));
        assert_eq!((server.authority.as_str(), server.ca.len()), ("r.example", 1));
        assert_eq!(server.connect_timeout, Some(Duration::from_millis(61_500)));
        assert_eq!(server.headers["x-server"], "yes");
        assert!(!format!("{hosts:?}").contains("hunter2"));
    }

    #[test]
    fn a_loopback_registry_with_certificates_speaks_tls() {
        let plain = |text: &str| parse(text, "localhost:5000", Path::new("/")).unwrap()[0].plain_http;
        assert!(plain("") && !plain("skip_verify = true"));
        assert!(plain("server = \"http://localhost:5000\"\nskip_verify = true"), "what is written counts");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, part) in [
            ("[host.\"https://a\"]\noverride = true", "override"),
            ("[host.\"https://a\"]\nclient = [[\"a\", \"b\", \"c\"]]", "https://a"),
            ("[host.\"https://a\"]\nclient = \"missing.key\"", "missing.key"),
            ("[host.\"https://a\"]\ndial_timeout = \"soon\"", "soon"),
            ("[host.\"https://a\"]\ndial_timeout = \"0s\"", "no time"),
            ("[host.\"https://a\"]\nproxy = \"ftp://p\"", "proxy"),
            ("[host.\"https://a\".header]\nx = 1", "\"x\""),
            ("[host.\"https://a\".header]\n\"x y\" = \"\"", "x y"),
            ("[host.\"https://a\".header]\nhost = \"b\"", "host"),
            ("srever = \"https://a\"", "srever"),
            ("server = 1", "server"),
            ("[host.\"https://a/b?c\"]", "path"),
            ("[host.\"https://a/../b\"]", "path"),
            ("[host.\"https://me:pw@a\"]", "host name"),
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
    fn no_error_shows_a_secret() {
        for text in [
            "[host.a.header]\nx = \"hunter2",
            "[host.a.header]\nx = \"hunter2\\u0000\"",
            "[host.a]\nproxy = \"hunter2\"",
            "[host.a]\nproxy = \"http://me:hunter2@/\"",
        ] {
            let error = parse(text, "docker.io", Path::new("/nowhere")).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
