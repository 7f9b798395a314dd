//! Ways to a registry, with Debian's `docker-registry` at the end of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use common::cutter::Cutter;
use common::puller::{Puller, given, noisy_image, user_of};
use common::registry::{Registry, USER};
use common::server::{Reply, Server};
use common::tls::{Authority, Signed};
use common::tokens;
use husk_image::credentials::{Credentials, Keychain, Secret};
use husk_image::login::{self, LoginError};

#[tokio::test]
async fn a_registry_with_tls_is_trusted_by_its_authority_alone() {
    let (authority, test) = (Authority::new("test"), noisy_image(1000));
    let plain = Registry::start().await;
    plain.push("team/app", "1", &test).await;
    let registry = plain.private_beside(&authority.for_registry(false)).await;
    let address = registry.address.to_string();
    let name = format!("{address}/team/app:1");
    let puller = Puller::new();
    puller.hosts(&address, &format!("server = \"https://{address}\""));
    let text = puller.refused(&name, user_of(&address)).await;
    assert!(text.to_lowercase().contains("certificate"), "{text}");
    puller.hosts(&address, "ca = \"missing.pem\"");
    assert!(puller.refused(&name, user_of(&address)).await.contains("missing.pem"));

    let ca = format!("ca = \"{}\"", authority.certificate().display());
    puller.hosts(&address, &ca);
    let text = puller.refused(&name, Keychain::Empty).await;
    assert!(text.contains("401") && text.contains("husk login"), "{text}");
    assert_eq!(puller.pull_as(&name, user_of(&address)).await.unwrap().id.to_string(), test.id());
    puller.store.remove(&name, false).unwrap();
    puller.hosts(&address, "skip_verify = true");
    puller.pull_as(&name, user_of(&address)).await.unwrap();

    let credentials =
        |password: &str| Credentials::Password { user: USER.0.to_owned(), password: Secret::from(password.to_owned()) };
    let certs_d = puller.dir(&address).parent().unwrap().to_owned();
    login::check(&address, &credentials(USER.1), &certs_d).await.unwrap();
    let error = login::check(&address, &credentials("wrong"), &certs_d).await.unwrap_err();
    assert!(matches!(&error, LoginError::Refused { cause, .. } if cause.contains("401")), "{error}");
}

#[tokio::test]
async fn a_registry_that_wants_a_certificate_is_shown_it() {
    let (authority, test) = (Authority::new("test"), noisy_image(1000));
    let plain = Registry::start().await;
    plain.push("team/app", "1", &test).await;
    let registry = plain.beside(&authority.for_registry(true), "").await;
    let address = registry.address.to_string();
    let name = format!("{address}/team/app:1");
    let puller = Puller::new();
    let ca = format!("ca = [\"{}\"]\n", authority.certificate().display());
    puller.hosts(&address, &ca);
    puller.refused(&name, Keychain::Empty).await;

    let own = authority.sign("own", &["client"]);
    let [certificate, key] = [&own.certificate, &own.key].map(|path| std::fs::read(path).unwrap());
    let both = puller.dir(&address).join("both.pem");
    std::fs::write(&both, [&certificate[..], b"\n", &key].concat()).unwrap();
    let pair_of = |own: &Signed| format!("[\"{}\", \"{}\"]", own.certificate.display(), own.key.display());
    let pair = format!("client = [{}]", pair_of(&own));
    // Which one of several is wanted the registry says by its authorities.
    let stranger = Authority::new("stranger");
    let several = format!("client = [{}, \"both.pem\"]", pair_of(&stranger.sign("own", &["client"])));
    for client in
        [&several, pair.as_str(), "client = \"both.pem\"", "client = [\"both.pem\"]", "client = [[\"both.pem\", \"\"]]"]
    {
        puller.hosts(&address, &format!("{ca}{client}"));
        puller.pull(&name).await.unwrap();
        puller.store.remove(&name, false).unwrap();
    }
    std::fs::write(&both, &certificate).unwrap();
    puller.hosts(&address, &format!("{ca}client = \"both.pem\""));
    let text = puller.refused(&name, Keychain::Empty).await;
    assert!(text.contains("not usable PEM") && text.contains(&address), "{text}");

    // As Docker keeps them.
    let dir = puller.dir(&address);
    std::fs::remove_file(dir.join("hosts.toml")).unwrap();
    std::fs::copy(authority.certificate(), dir.join("ca.crt")).unwrap();
    std::fs::write(dir.join("client.cert"), &certificate).unwrap();
    std::fs::write(dir.join("client.key"), &key).unwrap();
    assert_eq!(puller.pull(&name).await.unwrap().id.to_string(), test.id());
}

#[tokio::test]
async fn what_a_mirror_lacks_the_server_has() {
    let (mirror, server) = (Registry::start().await, Registry::start().await);
    let test = noisy_image(1000);
    server.push("library/app", "latest", &test).await;
    let puller = Puller::new();
    let hosts = |fields: &str| {
        format!("server = \"http://{}\"\n[host.\"http://{}\"]\n{fields}\n", server.address, mirror.address)
    };
    puller.hosts("_default", &format!("{}\n[host.\"http://127.0.0.1:1\"]\n", hosts("")));
    assert_eq!(puller.pull("app").await.unwrap().id.to_string(), test.id());
    puller.store.remove("app", false).unwrap();
    // What a name means there is not asked, but its bytes are as good as any others.
    mirror.push("library/app", "latest", &noisy_image(1)).await;
    puller.hosts("docker.io", &hosts("capabilities = [\"pull\"]"));
    assert_eq!(puller.pull("app").await.unwrap().id.to_string(), test.id());
    puller.store.remove("app", false).unwrap();
    puller.hosts("docker.io", &hosts(""));
    assert_eq!(puller.pull("app").await.unwrap().id.to_string(), noisy_image(1).id());
}

#[tokio::test]
async fn a_mirror_may_be_anywhere_below_its_host() {
    let test = noisy_image(1000);
    let plain = Registry::start().await;
    plain.push("library/app", "latest", &test).await;
    let registry = plain.beside("  prefix: /deep/down/\n", "").await;
    let puller = Puller::new();
    let root = format!("http://{}/deep/down", registry.address);
    for (url, fields) in
        [(root.clone(), ""), (format!("{root}/v2/"), ""), (format!("{root}/v2"), "override_path = true")]
    {
        puller.hosts("docker.io", &format!("server = \"http://127.0.0.1:1\"\n[host.\"{url}\"]\n{fields}"));
        puller.pull("app").await.unwrap();
        puller.store.remove("app", false).unwrap();
    }
    puller.hosts("docker.io", &format!("server = \"{root}\"\noverride_path = true"));
    let text = puller.refused("app", Keychain::Empty).await;
    assert!(text.contains("404"), "{text}");
}

#[tokio::test]
async fn a_mirror_is_told_the_registry_and_its_own_headers() {
    let mirror = Server::registry(&noisy_image(10), |_| None);
    let puller = Puller::new();
    let url = format!("http://{}", mirror.address);
    puller.hosts(
        "docker.io",
        &format!("[host.\"{url}\"]\n[host.\"{url}\".header]\nx-tenant = \"blue\"\nauthorization = \"Own way\"\n"),
    );
    puller.pull("app").await.unwrap();
    assert_eq!(mirror.seen().len(), 3);
    for request in mirror.seen() {
        assert_eq!(request.field("ns").as_deref(), Some("docker.io"), "{request:?}");
        assert_eq!((request.header("x-tenant"), request.header("authorization")), (Some("blue"), Some("Own way")));
    }
    // The registry itself is told nothing.
    let name = format!("{}/app", mirror.address);
    puller.store.remove("app", false).unwrap();
    puller.pull(&name).await.unwrap();
    assert!(mirror.seen()[3..].iter().all(|request| request.field("ns").is_none()), "{:?}", mirror.seen());
}

#[tokio::test]
async fn a_proxy_is_asked_in_place_of_the_host_itself() {
    let proxy = Server::registry(&noisy_image(10), |_| None);
    let puller = Puller::new();
    let text = format!("server = \"http://registry.invalid\"\nproxy = \"http://me:{}@{}\"", USER.1, proxy.address);
    puller.hosts("docker.io", &text);
    puller.pull("app").await.unwrap();
    assert_eq!(proxy.seen().len(), 3);
    for request in proxy.seen() {
        assert!(request.path.starts_with("http://registry.invalid/v2/library/app/"), "{request:?}");
        assert!(request.header("proxy-authorization").is_some());
    }
}

#[tokio::test]
async fn a_layer_whose_connections_break_arrives_whole_and_once() {
    let test = noisy_image(3 << 20);
    let registry = Registry::start().await;
    registry.push("library/app", "latest", &test).await;
    let cutter = Cutter::start(registry.address, 400 << 10);
    let puller = Puller::new();
    puller.hosts("docker.io", &format!("server = \"http://{}\"", cutter.address));
    assert_eq!(puller.pull("app").await.unwrap().id.to_string(), test.id());
    let sizes = [&test.layers[0], &test.config, &test.manifest].map(|bytes| bytes.len() as u64).iter().sum::<u64>();
    assert!(cutter.connections() >= sizes / (400 << 10));
    // Each answer has a head, and a cut answer was sent by the registry but not counted.
    let most = sizes + (cutter.connections() + 3) * 1024;
    assert!((sizes..most).contains(&cutter.passed()), "{} bytes for {sizes}", cutter.passed());
}

#[tokio::test]
async fn where_one_host_gives_up_the_next_goes_on() {
    let test = noisy_image(100_000);
    let layer = test.layers[0].clone();
    let half = layer.len() / 2;
    let digest = common::archive::digest(&layer);
    let broken = Server::registry(&test, move |request| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", layer.len());
        match request.header("range") {
            _ if !request.path.contains(&digest) => None,
            None => Some(Reply::Bytes([head.as_bytes(), &layer[..half]].concat())),
            Some(_) => Some(Reply::new("416 Range Not Satisfiable", &[], b"")),
        }
    });
    let whole = Server::registry(&test, |_| None);
    let puller = Puller::new();
    let text = format!("server = \"http://{}\"\n[host.\"http://{}\"]", whole.address, broken.address);
    puller.hosts("docker.io", &text);
    assert_eq!(puller.pull("app").await.unwrap().id.to_string(), test.id());
    assert_eq!(broken.seen().len(), 4, "manifest, config, and the two halves of the layer");
    let seen = whole.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("range"), Some(format!("bytes={half}-").as_str()));
}

#[tokio::test]
async fn tokens_are_fetched_for_passwords_and_for_refresh_tokens() {
    let (authority, test) = (Authority::new("test"), noisy_image(100_000));
    let plain = Registry::start().await;
    plain.push("team/app", "1", &test).await;
    let server = tokens::start(&authority);
    let registry = plain.beside("", &tokens::section(&authority, &server)).await;
    let address = registry.address.to_string();
    let name = format!("{address}/team/app:1");
    let puller = Puller::new();
    let secret = |text: &str| Secret::from(text.to_owned());
    let password = |text: &str| Credentials::Password { user: USER.0.to_owned(), password: secret(text) };
    for refused in [
        Credentials::Anonymous,
        password("wrong"),
        Credentials::Identity(secret("wrong")),
        Credentials::Bearer(secret("wrong")),
        Credentials::Bearer(secret("two\nlines")),
    ] {
        let text = puller.refused(&name, given(&address, refused)).await;
        assert!(text.contains("NotFound") && !text.contains("wrong"), "{text}");
    }
    for taken in [password(USER.1), Credentials::Identity(secret(tokens::REFRESH))] {
        let before = server.seen().len();
        let image = puller.pull_as(&name, given(&address, taken)).await.unwrap();
        assert_eq!(image.id.to_string(), test.id());
        puller.store.remove(&name, false).unwrap();
        assert_eq!(server.seen().len(), before + 1, "one token is enough for all requests");
        assert_eq!(server.seen()[before].field("scope").as_deref(), Some("repository:team/app:pull"));
    }
    login::check(&address, &password(USER.1), Path::new("/nonexistent")).await.unwrap();
    let error = login::check(&address, &password("wrong"), Path::new("/nonexistent")).await.unwrap_err();
    assert!(matches!(&error, LoginError::Refused { cause, .. } if cause.contains("token server")), "{error}");
}

#[tokio::test]
async fn what_began_encrypted_is_not_redirected_to_plain_http() {
    let (authority, test) = (Authority::new("test"), noisy_image(1000));
    let plain = Registry::start().await;
    plain.push("team/app", "1", &test).await;
    let elsewhere = Server::start(|_| Reply::ok(b"x"));
    let redirect = format!(
        "middleware:\n  storage:\n    - name: redirect\n      options:\n        baseurl: http://{}/\n",
        elsewhere.address
    );
    let registry = plain.beside(&authority.for_registry(false), &redirect).await;
    let address = registry.address.to_string();
    let puller = Puller::new();
    puller.hosts(&address, &format!("ca = \"{}\"", authority.certificate().display()));
    let text = puller.refused(&format!("{address}/team/app:1"), Keychain::Empty).await;
    assert!(text.contains("plain http") && elsewhere.seen().is_empty(), "{text}");
}
