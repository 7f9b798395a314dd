//! What a hostile client gets.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::runtime::{Seen, TestRuntime};
use super::spdy_client::Client;
use super::{With, served};
use crate::ExecRequest;
use crate::remotecommand::Call;
use crate::spdy::connection::Connection;
use crate::spdy::{port_forward, remotecommand};
use crate::status::StatusFormat;

const V4: &[&str] = &["v4.channel.k8s.io"];

#[tokio::test]
async fn ids_that_are_even_or_do_not_rise_are_reset() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("sleep", With::default()), V4).await;
    client.open_as(5, &[("streamtype", "error")]).await;
    assert!(client.streams[&5].replied);
    for id in [2, 3, 0, 6] {
        client.open_as(id, &[("streamtype", "stdout")]).await;
        assert_eq!(client.streams[&id].reset, Some(1), "{id}");
    }
}

#[tokio::test]
async fn types_that_are_unknown_or_repeated_are_reset() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("sleep", With::default()), V4).await;
    let [_, nonsense, again] = client.open_all(["error", "nonsense", "error"]).await;
    client.until(|client| client.streams[&nonsense].reset == Some(1)).await;
    client.until(|client| client.streams[&again].reset == Some(1)).await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("sleep", With::default()), V4).await;
    client.open_all(["error", "stdout", "stderr"]).await;
    let [late] = client.open_all(["stdin"]).await;
    assert_eq!(client.streams[&late].reset, Some(3));
    let mut client = Client::connect(&served.port_forward(&[]), &[]).await;
    for number in 0..1000 {
        let id = client.open(&[("streamtype", "error"), ("port", "7"), ("requestid", &number.to_string())]).await;
        assert!(client.streams[&id].replied, "{number}");
    }
    let [beyond] = client.open_all(["error"]).await;
    assert_eq!(client.streams[&beyond].reset, Some(3));
}

#[tokio::test]
async fn what_is_not_spdy_ends_the_connection() {
    let served = served().await;
    for bytes in [
        // Version 2, a frame that is too long, a header block that is none.
        &[0x80, 2, 0, 1, 0, 0, 0, 0][..],
        &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
        &[0x80, 3, 0, 1, 0, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
        &[0x80, 3, 0, 6, 0, 0, 0, 3, 0, 0, 0],
    ] {
        let mut client = Client::connect(&served.exec("sleep", With::default()), V4).await;
        client.send_raw(bytes).await;
        client.until_closed().await;
        assert_eq!(client.goaway, Some(1), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_client_that_writes_waits_for_its_process() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("sleep", With { stdin: true, tty: false }), V4).await;
    let [_, stdin, _, _] = client.open_all(["error", "stdin", "stdout", "stderr"]).await;
    // The process reads nothing: socket buffers and one MiB here fill, and then the client waits.
    let bytes = vec![0; 256 * 1024];
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_secs(1), client.send(stdin, &bytes)).await.is_ok() {
        sent += bytes.len();
        assert!(sent < 64 * 1024 * 1024);
    }
    assert!(sent > 0);
}

fn sleep() -> Call {
    let command = vec!["sleep".to_owned()];
    let container = "c1".to_owned();
    Call::Exec(ExecRequest { container, command, tty: false, stdin: false, stdout: true, stderr: true })
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_too_few_streams_is_dropped_after_half_a_minute() {
    let runtime = Arc::new(TestRuntime { seen: Arc::new(Seen::default()) });
    let (mut client, server) = tokio::io::duplex(4096);
    let (read, write) = tokio::io::split(server);
    let connection = Connection::start(&[], read, write, 100);
    let start = tokio::time::Instant::now();
    let serving = tokio::spawn(remotecommand::serve(connection, runtime, sleep(), StatusFormat::Json));
    let mut farewell = Vec::new();
    client.read_to_end(&mut farewell).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 30);
    // GOAWAY.
    assert_eq!(farewell.get(..4), Some(&[0x80, 3, 0, 7][..]));
    drop(client);
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_silent_for_four_hours_is_closed_however_often_it_pings() {
    let runtime = Arc::new(TestRuntime { seen: Arc::new(Seen::default()) });
    let (client, server) = tokio::io::duplex(4096);
    let (read, write) = tokio::io::split(server);
    let connection = Connection::start(&[], read, write, 100);
    let start = tokio::time::Instant::now();
    let serving = tokio::spawn(port_forward::serve(connection, runtime, "s1".to_owned()));
    let (mut from, mut to) = tokio::io::split(client);
    let pinging = tokio::spawn(async move {
        while to.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    });
    let mut pongs = Vec::new();
    from.read_to_end(&mut pongs).await.unwrap();
    assert!(pongs.len() > 200 * 12);
    assert_eq!(start.elapsed().as_secs() / 60, 4 * 60);
    serving.await.unwrap();
    pinging.await.unwrap();
}
