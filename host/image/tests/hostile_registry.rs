//! Registries, token servers and mirrors that mean no good.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::archive::digest;
use common::puller::{Puller, noisy_image, user_of};
use common::server::{Reply, Request, Server};
use husk_image::credentials::Keychain;

const UNAUTHORIZED: &str = "401 Unauthorized";

fn name(server: &Server) -> String {
    format!("{}/team/app", server.address)
}

fn bearer(realm: &str) -> Reply {
    Reply::new(UNAUTHORIZED, &[("WWW-Authenticate", &format!("Bearer realm=\"{realm}\",service=\"s\""))], b"")
}

fn basic() -> Reply {
    Reply::new(UNAUTHORIZED, &[("WWW-Authenticate", "Basic realm=\"r\"")], b"")
}

/// Answers of a token server with these tokens, one after the other, and then the last one for ever.
fn tokens(tokens: &'static [&'static str]) -> Server {
    let next = AtomicUsize::new(0);
    Server::start(move |_| {
        let token = tokens[next.fetch_add(1, Ordering::Relaxed).min(tokens.len() - 1)];
        Reply::ok(serde_json::json!({"token": token, "expires_in": 300}).to_string().as_bytes())
    })
}

#[tokio::test]
async fn a_manifest_without_an_end_is_refused() {
    let puller = Puller::new();
    for length in ["Content-Length: 1073741824\r\n", ""] {
        let head = format!("HTTP/1.1 200 OK\r\n{length}\r\n");
        let server = Server::start(move |_| Reply::Endless(head.clone().into_bytes(), vec![b' '; 64 << 10]));
        let text = puller.refused(&name(&server), Keychain::Empty).await;
        assert!(text.contains("larger than 4194304 bytes"), "{text}");
    }
}

#[tokio::test]
async fn headers_without_an_end_are_given_up() {
    let puller = Puller::new();
    for header in ["x: y\r\n", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"] {
        let header = header.repeat(1000).into_bytes();
        let server = Server::start(move |_| Reply::Endless(b"HTTP/1.1 200 OK\r\nz: ".to_vec(), header.clone()));
        let text = puller.refused(&name(&server), Keychain::Empty).await;
        assert!(text.contains("Unavailable"), "{text}");
    }
}

#[tokio::test]
async fn a_token_that_would_be_another_header_is_no_token() {
    let puller = Puller::new();
    for token in ["a\r\nx-evil: b", "a\nb", "\u{0}", "ä", "a b", ""] {
        let server = Server::start(move |_| Reply::ok(serde_json::json!({"token": token}).to_string().as_bytes()));
        let realm = format!("http://{}/token", server.address);
        let registry = Server::start(move |_| bearer(&realm));
        let text = puller.refused(&name(&registry), user_of(registry.address)).await;
        assert!(text.contains("no usable token") && !text.contains("x-evil"), "{text}");
        assert!(registry.seen().iter().all(|request| request.header("authorization").is_none()));
    }
}

#[tokio::test]
async fn a_token_without_an_end_is_refused() {
    let server =
        Server::start(|_| Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n{\"token\": \"".to_vec(), vec![b'a'; 1 << 16]));
    let realm = format!("http://{}/token", server.address);
    let registry = Server::start(move |_| bearer(&realm));
    let text = Puller::new().refused(&name(&registry), Keychain::Empty).await;
    assert!(text.contains("no usable token") && text.len() < 2000, "{text}");
}

#[tokio::test]
async fn a_token_that_is_never_taken_ends_the_pull() {
    let server = tokens(&["a"]);
    let realm = format!("http://{}/token", server.address);
    let registry = Server::start(move |_| bearer(&realm));
    let text = Puller::new().refused(&name(&registry), user_of(registry.address)).await;
    assert!(text.contains("401") && text.contains("husk login"), "{text}");
    assert_eq!((registry.seen().len(), server.seen().len()), (2, 1));
}

#[tokio::test]
async fn a_token_that_runs_out_is_renewed() {
    let server = tokens(&["first", "second"]);
    let realm = format!("http://{}/token", server.address);
    let registry = Server::registry(&noisy_image(1000), move |request| {
        let layers = request.path.contains("/blobs/");
        let taken = if layers { "Bearer second" } else { "Bearer first" };
        (request.header("authorization") != Some(taken)).then(|| bearer(&realm))
    });
    Puller::new().pull(&name(&registry)).await.unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn passwords_go_to_no_other_host_over_plain_http() {
    let elsewhere = Server::start_at("127.0.0.2", |_| Reply::ok(b"{\"token\": \"a\"}"));
    let realm = format!("http://{}/token", elsewhere.address);
    let registry = Server::start(move |_| bearer(&realm));
    let text = Puller::new().refused(&name(&registry), user_of(registry.address)).await;
    assert!(text.contains("plain http") && text.contains("127.0.0.2"), "{text}");
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn redirects_that_lead_nowhere_are_given_up() {
    let puller = Puller::new();
    let looping = Server::start(|request| Reply::new("302 Found", &[("Location", &request.path)], b""));
    let text = puller.refused(&name(&looping), Keychain::Empty).await;
    assert!(text.contains("redirects more than 10 times"), "{text}");
    assert_eq!(looping.seen().len(), 11);
    for place in ["file:///etc/passwd", "http://", "ftp://127.0.0.1/", "data:,x"] {
        let server = Server::start(move |_| Reply::new("307 Temporary Redirect", &[("Location", place)], b""));
        let text = puller.refused(&name(&server), Keychain::Empty).await;
        assert!(text.contains("no place that can be asked"), "{text}");
    }
}

#[tokio::test]
async fn what_is_meant_for_a_registry_is_not_carried_where_it_redirects() {
    let test = noisy_image(100_000);
    let storage = Server::registry(&test, |_| None);
    let place = storage.address;
    let registry = Server::registry(&test, move |request| {
        if request.header("authorization").is_none() {
            return Some(basic());
        }
        let location = format!("http://{place}{}", request.path);
        request.path.contains("/blobs/").then(|| Reply::new("307 Temporary Redirect", &[("Location", &location)], b""))
    });
    let puller = Puller::new();
    let address = registry.address.to_string();
    puller.hosts(&address, &format!("server = \"http://{address}\"\n[header]\nx-tenant = \"blue\""));
    puller.pull_as(&name(&registry), user_of(&address)).await.unwrap();
    let carried = |request: &Request| request.header("authorization").is_some() || request.header("x-tenant").is_some();
    assert_eq!(storage.seen().len(), 2);
    assert!(!storage.seen().iter().any(carried), "{:?}", storage.seen());
    assert!(registry.seen().iter().all(|request| request.header("x-tenant") == Some("blue")));
}

#[tokio::test]
async fn where_a_registry_redirects_no_password_can_be_asked_for() {
    let trap = tokens(&["a"]);
    let realm = format!("http://{}/token", trap.address);
    let elsewhere = Server::start(move |_| bearer(&realm));
    let location = format!("http://{}/", elsewhere.address);
    let registry = Server::start(move |_| Reply::new("302 Found", &[("Location", &location)], b""));
    let text = Puller::new().refused(&name(&registry), user_of(registry.address)).await;
    assert!(text.contains("it redirects to 127.0.0.1: HTTP 401"), "{text}");
    assert!(trap.seen().is_empty() && elsewhere.seen().len() == 1);
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let left = Arc::new(AtomicUsize::new(2));
    let registry = Server::registry(&noisy_image(1000), move |_| {
        let busy = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).ok()?;
        Some(match busy {
            2 => Reply::new("429 Too Many Requests", &[("Retry-After", "1")], b""),
            _ => Reply::new("503 Service Unavailable", &[("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")], b""),
        })
    });
    Puller::new().pull(&name(&registry)).await.unwrap();
    assert_eq!(registry.seen().len(), 5);
}

#[tokio::test]
async fn what_a_registry_says_of_its_refusal_is_shown_without_its_tricks() {
    let said = r#"{"errors": [{"code": "DENIED", "message": "pay\u001b[2J first"}]}"#;
    let registry = Server::start(move |_| Reply::new("403 Forbidden", &[], said.as_bytes()));
    let text = Puller::new().refused(&name(&registry), Keychain::Empty).await;
    assert!(text.contains("403 Forbidden: pay[2J first"), "{text}");
}

/// Pulls from a registry that cuts the layer in its middle, and then does as `again` says.
async fn cut(again: impl Fn(&[u8], usize) -> Reply + Send + Sync + 'static) -> Result<(), String> {
    let test = noisy_image(100_000);
    let layer = test.layers[0].clone();
    let half = layer.len() / 2;
    let registry = Server::registry(&test, move |request| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", layer.len());
        match request.header("range") {
            _ if !request.path.contains(&digest(&layer)) => None,
            None => Some(Reply::Bytes([head.as_bytes(), &layer[..half]].concat())),
            Some(range) => {
                assert_eq!(range, format!("bytes={half}-"));
                Some(again(&layer, half))
            }
        }
    });
    let puller = Puller::new();
    match puller.pull(&name(&registry)).await {
        Ok(image) => {
            assert_eq!(image.id.to_string(), test.id());
            Ok(())
        }
        Err(_) => Err(puller.refused(&name(&registry), Keychain::Empty).await),
    }
}

fn part(range: &str, bytes: &[u8]) -> Reply {
    Reply::new("206 Partial Content", &[("Content-Range", range)], bytes)
}

#[tokio::test]
async fn a_registry_that_knows_no_ranges_sends_all_of_it_again() {
    cut(|layer, _| Reply::ok(layer)).await.unwrap();
}

#[tokio::test]
async fn another_part_than_was_asked_for_is_refused() {
    for range in ["bytes 0-9/100000", "bytes", "lines 1-2/3", ""] {
        let text = cut(move |layer, half| part(range, &layer[half..])).await.unwrap_err();
        assert!(text.contains("another part of the blob"), "{text}");
    }
    let text = cut(|_, _| Reply::new("416 Range Not Satisfiable", &[], b"")).await.unwrap_err();
    assert!(text.contains("416"), "{text}");
    let text = cut(|_, _| Reply::new("204 No Content", &[], b"")).await.unwrap_err();
    assert!(text.contains("204"), "{text}");
}

#[tokio::test]
async fn a_layer_of_another_size_or_content_is_refused() {
    let of = |half: usize, all: usize| format!("bytes {half}-{}/{all}", all - 1);
    let longer = cut(move |layer, half| part(&of(half, layer.len()), &[&layer[half..], b"x"].concat())).await;
    assert!(longer.as_ref().unwrap_err().contains("the manifest says"), "{longer:?}");
    let shorter = cut(move |layer, half| part(&of(half, layer.len()), &layer[half + 1..])).await;
    assert!(shorter.as_ref().unwrap_err().contains("the manifest says"), "{shorter:?}");
    let other = cut(move |layer, half| part(&of(half, layer.len()), &vec![0; layer.len() - half])).await;
    assert!(other.as_ref().unwrap_err().contains("digest"), "{other:?}");
    let endless = cut(|_, _| Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![0; 1 << 16])).await;
    assert!(endless.as_ref().unwrap_err().contains("the manifest says"), "{endless:?}");
}

#[tokio::test]
async fn a_password_is_only_sent_when_it_is_asked_for() {
    let registry = Server::registry(&noisy_image(10), |_| None);
    Puller::new().pull_as(&name(&registry), user_of(registry.address)).await.unwrap();
    assert!(registry.seen().iter().all(|request| request.header("authorization").is_none()));
}
