use std::time::Duration;

use super::runtime::{CLOSED, ECHO, ECHO_AT_END};
use super::spdy_client::Client;
use super::{pattern, served};

const PROTOCOL: &[&str] = &["portforward.k8s.io"];

/// Opens the two streams of a connection: the one for errors, whose client's side kubectl closes at once, and data.
async fn connection(client: &mut Client, port: u16, request: &str) -> (u32, u32) {
    let port = port.to_string();
    let error = client.open(&[("streamtype", "error"), ("port", &port), ("requestid", request)]).await;
    client.finish(error).await;
    let data = client.open(&[("streamtype", "data"), ("port", &port), ("requestid", request)]).await;
    (error, data)
}

#[tokio::test]
async fn several_connections_are_forwarded_at_once() {
    let served = served().await;
    let mut client = Client::connect(&served.port_forward(&[]), PROTOCOL).await;
    assert!(client.head.contains("x-stream-protocol-version: portforward.k8s.io"));
    let mut connections = Vec::new();
    for number in 0..20 {
        let port = if number % 2 == 0 { ECHO } else { ECHO_AT_END };
        connections.push(connection(&mut client, port, &number.to_string()).await);
    }
    let bytes = pattern(200_000);
    for piece in bytes.chunks(10_000) {
        for (_, data) in &connections {
            client.send(*data, piece).await;
        }
    }
    for (_, data) in &connections {
        client.finish(*data).await;
    }
    for (error, data) in connections {
        client.until(|client| client.streams[&data].ended && client.streams[&error].ended).await;
        assert!(client.streams[&data].bytes == bytes);
        assert_eq!(client.text(error), "");
        assert_eq!(client.streams[&data].reset, None);
    }
}

#[tokio::test]
async fn a_port_that_is_closed_is_told_and_its_streams_are_reset() {
    let served = served().await;
    let mut client = Client::connect(&served.port_forward(&[]), PROTOCOL).await;
    let (error, data) = connection(&mut client, CLOSED, "0").await;
    client.until(|client| client.streams[&error].ended && client.streams[&data].reset.is_some()).await;
    assert_eq!(client.text(error), "error forwarding port 1 to pod s1: nobody listens");
    let (_, data) = connection(&mut client, ECHO, "1").await;
    client.send(data, b"others go on").await;
    client.until(|client| client.streams[&data].bytes == b"others go on").await;
}

#[tokio::test]
async fn streams_without_a_request_id_are_paired_by_their_order() {
    let served = served().await;
    let mut client = Client::connect(&served.port_forward(&[]), &[]).await;
    for _ in 0..2 {
        client.open(&[("streamtype", "error"), ("port", "7")]).await;
        let data = client.open(&[("streamtype", "data"), ("port", "7")]).await;
        client.send(data, b"echo").await;
        client.until(|client| client.streams[&data].bytes == b"echo").await;
    }
}

#[tokio::test]
async fn streams_that_make_no_pair_are_reset() {
    let served = served().await;
    let mut client = Client::connect(&served.port_forward(&[]), PROTOCOL).await;
    for headers in [
        &[("streamtype", "stdin"), ("port", "7"), ("requestid", "0")][..],
        &[("streamtype", "data"), ("port", "0"), ("requestid", "0")],
        &[("streamtype", "data"), ("port", "65536"), ("requestid", "0")],
        &[("streamtype", "data"), ("requestid", "0")],
        &[],
    ] {
        let id = client.open(headers).await;
        client.until(|client| client.streams[&id].reset == Some(1)).await;
    }
    client.open(&[("streamtype", "error"), ("port", "7"), ("requestid", "1")]).await;
    let twice = client.open(&[("streamtype", "error"), ("port", "7"), ("requestid", "1")]).await;
    client.until(|client| client.streams[&twice].reset == Some(1)).await;
}

#[tokio::test]
async fn connections_that_have_ended_make_room_for_others() {
    let served = served().await;
    let mut client = Client::connect(&served.port_forward(&[]), PROTOCOL).await;
    for number in 0..1200 {
        let (error, data) = connection(&mut client, ECHO, &number.to_string()).await;
        client.finish(data).await;
        client.until(|client| client.streams[&data].ended && client.streams[&error].ended).await;
    }
}

#[tokio::test]
async fn what_was_sent_before_the_client_left_is_delivered() {
    let (near, far) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(far);
    let (target, mut behind) = tokio::io::duplex(64);
    let relaying = tokio::spawn(crate::relay(crate::DataStream::new(reader, writer), target));
    let sent = pattern(10_000);
    let client = tokio::spawn({
        let sent = sent.clone();
        async move {
            let mut near = near;
            tokio::io::AsyncWriteExt::write_all(&mut near, &sent).await.unwrap();
        }
    });
    let mut got = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut behind, &mut got).await.unwrap();
    assert!(got == sent);
    client.await.unwrap();
    relaying.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_lives_while_bytes_wait_and_a_second_longer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (mut client, far) = tokio::io::duplex(1000);
    let (reader, writer) = tokio::io::split(far);
    let (target, behind) = tokio::io::duplex(1000);
    let relaying = tokio::spawn(crate::relay(crate::DataStream::new(reader, writer), target));
    let (mut behind_reader, mut behind_writer) = tokio::io::split(behind);
    let sent = pattern(50_000);
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move { behind_writer.write_all(&sent).await.map(|()| behind_writer) }
    });
    client.shutdown().await.unwrap();
    assert_eq!(behind_reader.read(&mut [0; 1]).await.unwrap(), 0);
    // A client that pauses for far longer than a second between its reads gets every byte.
    let mut got = vec![0; sent.len()];
    for piece in got.chunks_mut(20_000) {
        tokio::time::sleep(Duration::from_secs(60)).await;
        client.read_exact(piece).await.unwrap();
    }
    assert!(got == sent);
    let writer = writing.await.unwrap().unwrap();
    let last = tokio::time::Instant::now();
    relaying.await.unwrap();
    assert!((900..1100).contains(&last.elapsed().as_millis()), "{:?}", last.elapsed());
    drop(writer);
}
