use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::runtime::{Seen, TestRuntime};
use super::spdy_client::{Client, parts, request, upgrade};
use super::{With, served};
use crate::Server;

const V4: &[&str] = &["v4.channel.k8s.io"];

#[tokio::test]
async fn a_url_is_good_for_one_call() {
    let served = served().await;
    let url = served.exec("seven", With::default());
    let (address, path) = parts(&url);
    assert_eq!(address, served.server.address().to_string());
    assert_eq!(path.len(), "/exec/".len() + 22);
    Client::connect(&url, V4).await;
    let (head, _) = request(&url, "POST", &upgrade(V4)).await;
    assert!(head.starts_with("http/1.1 404 "), "{head}");
}

#[tokio::test]
async fn a_token_is_for_the_call_that_it_was_made_for() {
    let served = served().await;
    let url = served.exec("seven", With::default()).replace("/exec/", "/attach/");
    let (head, _) = request(&url, "POST", &upgrade(V4)).await;
    assert!(head.starts_with("http/1.1 404 "), "{head}");
    for path in ["/", "/exec", "/exec/", "/exec/x/y", "/nonsense/x", "//", "/exec/%00"] {
        let (head, _) = request(&format!("http://{}{path}", served.server.address()), "GET", "").await;
        assert!(head.starts_with("http/1.1 404 "), "{path}: {head}");
    }
}

#[tokio::test]
async fn an_unknown_protocol_is_forbidden_and_the_known_ones_are_named() {
    let served = served().await;
    let (head, _) = request(&served.exec("seven", With::default()), "POST", &upgrade(&["v6.channel.k8s.io"])).await;
    assert!(head.starts_with("http/1.1 403 "), "{head}");
    for version in ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        assert!(head.contains(&format!("x-accept-stream-protocol-versions: {version}\r\n")), "{head}");
    }
    let (head, _) = request(&served.port_forward(&[]), "POST", &upgrade(V4)).await;
    assert!(head.contains("x-accept-stream-protocol-versions: portforward.k8s.io\r\n"), "{head}");
}

#[tokio::test]
async fn requests_that_are_no_upgrades_are_refused() {
    let served = served().await;
    let exec = || served.exec("seven", With::default());
    for (method, headers, status) in [
        ("DELETE", upgrade(V4), 405),
        ("POST", String::new(), 400),
        ("POST", "Upgrade: SPDY/3.1\r\n".to_owned(), 400),
        ("POST", "Connection: upgrade\r\nUpgrade: h2c\r\n".to_owned(), 400),
        ("GET", "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".to_owned(), 400),
        ("GET", "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n".to_owned(), 400),
    ] {
        let (head, _) = request(&exec(), method, &headers).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{method} {headers}: {head}");
    }
}

#[tokio::test]
async fn addresses_that_others_reach_are_refused() {
    let runtime = Arc::new(TestRuntime { seen: Arc::new(Seen::default()) });
    let refused = Server::bind(([0, 0, 0, 0], 0).into(), runtime).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_lets_calls_end() {
    let served = served().await;
    let url = served.exec("cat", With { stdin: true, tty: false });
    let mut client = Client::connect(&url, V4).await;
    let [_, stdin, stdout, _] = client.open_all(["error", "stdin", "stdout", "stderr"]).await;
    served.shutdown.cancel();
    client.send(stdin, b"still there").await;
    client.until(|client| client.streams[&stdout].bytes == b"still there").await;
    client.finish(stdin).await;
    client.until_closed().await;
    drop(client);
    tokio::time::timeout(Duration::from_secs(5), served.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn silent_connections_are_closed_and_keep_nobody_out() {
    let served = served().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(tokio::net::TcpStream::connect(served.server.address()).await.unwrap());
    }
    let (head, _) = request(&served.exec("seven", With::default()), "POST", &upgrade(V4)).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
}
