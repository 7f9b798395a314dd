use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::runtime::{CLOSED, ECHO};
use super::spdy_client::request;
use super::{With, pattern, served};
use crate::spdy::Decoder;
use crate::spdy::frame::{self, Encoder, Frame};
use crate::spdy::header_block::Headers;

type Socket = WebSocketStream<TcpStream>;

async fn connect(url: &str, protocols: &str) -> (String, Socket) {
    let offer = if protocols.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {protocols}\r\n") };
    // The key and its answer of RFC 6455, section 1.3.
    let headers = format!(
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}"
    );
    let (head, stream) = request(url, "GET", &headers).await;
    if head.starts_with("http/1.1 101 ") {
        assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    }
    (head, WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
}

async fn send(socket: &mut Socket, channel: u8, bytes: &[u8]) {
    let message = [&[channel], bytes].concat();
    socket.send(Message::binary(message)).await.unwrap();
}

/// What came on channels 0 to 7 until the server closed the connection in good order.
async fn until_closed(socket: &mut Socket) -> [Vec<u8>; 8] {
    let mut channels: [Vec<u8>; 8] = Default::default();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]),
            Message::Text(text) => {
                let bytes = text.as_bytes();
                channels[usize::from(bytes[0] - b'0')].extend(STANDARD.decode(&bytes[1..]).unwrap());
            }
            Message::Close(frame) => {
                assert_eq!(frame.unwrap().code, CloseCode::Normal);
                assert!(socket.next().await.is_none());
                return channels;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn version_5_ends_stdin_and_goes_on() {
    let served = served().await;
    let url = served.exec("cat", With { stdin: true, tty: false });
    let (head, mut socket) = connect(&url, "v5.channel.k8s.io").await;
    assert!(head.contains("sec-websocket-protocol: v5.channel.k8s.io\r\n"), "{head}");
    let first = socket.next().await.unwrap().unwrap();
    assert_eq!(first, Message::binary(vec![1]), "an empty message says that the connection is made");
    send(&mut socket, 0, b"in and ").await;
    send(&mut socket, 0, b"out").await;
    // Channel 9 does not exist.
    send(&mut socket, 9, b"nothing").await;
    send(&mut socket, 255, &[0]).await;
    let [_, stdout, stderr, error, ..] = until_closed(&mut socket).await;
    assert_eq!(stdout, b"in and out");
    assert_eq!(stderr, b"");
    assert_eq!(error, br#"{"status":"Success"}"#);
}

#[tokio::test]
async fn version_4_and_its_variants_tell_exit_codes() {
    let served = served().await;
    for (protocols, chosen, json) in [
        ("v6.channel.k8s.io, v4.channel.k8s.io", Some("v4.channel.k8s.io"), true),
        ("v4.base64.channel.k8s.io", Some("v4.base64.channel.k8s.io"), true),
        ("base64.channel.k8s.io", Some("base64.channel.k8s.io"), false),
        ("", None, false),
    ] {
        let (head, mut socket) = connect(&served.exec("seven", With::default()), protocols).await;
        match chosen {
            Some(chosen) => assert!(head.contains(&format!("sec-websocket-protocol: {chosen}\r\n")), "{head}"),
            None => assert!(!head.contains("sec-websocket-protocol"), "{head}"),
        }
        let [_, stdout, stderr, error, ..] = until_closed(&mut socket).await;
        assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"out"[..], &b"err"[..]));
        let error = String::from_utf8(error).unwrap();
        assert_eq!(error.contains(r#""reason":"ExitCode","message":"7""#), json, "{error}");
        assert!(error.contains("command terminated with non-zero exit code: 7"), "{error}");
    }
}

#[tokio::test]
async fn unknown_protocols_are_forbidden() {
    let served = served().await;
    let (head, _) = connect(&served.exec("seven", With::default()), "v6.channel.k8s.io").await;
    assert!(head.starts_with("http/1.1 403 "), "{head}");
}

#[tokio::test]
async fn a_terminal_has_sizes() {
    let served = served().await;
    let (_, mut socket) = connect(&served.exec("sizes", With { tty: true, stdin: true }), "v5.channel.k8s.io").await;
    send(&mut socket, 4, br#"{"Width":80,"Height":24}"#).await;
    send(&mut socket, 4, br#"{"Width":90,"Height":30}"#).await;
    let [_, stdout, ..] = until_closed(&mut socket).await;
    assert_eq!(stdout, b"80x24 90x30 ");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_and_pings_are_answered() {
    let served = served().await;
    let (_, mut socket) = connect(&served.attach(), "v5.channel.k8s.io").await;
    socket.send(Message::Ping("there?".into())).await.unwrap();
    while socket.next().await.unwrap().unwrap() != Message::Pong("there?".into()) {}
    socket.close(None).await.unwrap();
    while !served.seen.left.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn messages_that_are_too_long_or_close_nothing_end_the_connection() {
    let served = served().await;
    for message in [vec![0; 1024 * 1024 + 1], vec![255], vec![255, 0, 1]] {
        let url = served.exec("sleep", With { tty: false, stdin: true });
        let (_, mut socket) = connect(&url, "v5.channel.k8s.io").await;
        served.seen.left.store(false, Ordering::SeqCst);
        let _ = socket.send(Message::binary(message)).await;
        while !served.seen.left.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn ports_have_pairs_of_channels() {
    let served = served().await;
    let (head, mut socket) = connect(&served.port_forward(&[ECHO, CLOSED]), "v4.channel.k8s.io").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    let mut channels: [Vec<u8>; 4] = Default::default();
    send(&mut socket, 0, b"echo").await;
    let failure = b"error forwarding port 1 to pod s1: nobody listens";
    while channels[0].len() < 6 || channels[3].len() < 2 + failure.len() {
        let Message::Binary(bytes) = socket.next().await.unwrap().unwrap() else { panic!() };
        channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
    }
    assert_eq!(channels[0], [&[7, 0], &b"echo"[..]].concat());
    assert_eq!(channels[1], [7, 0]);
    assert_eq!(channels[2], [1, 0]);
    assert_eq!(channels[3], [&[1, 0], &failure[..]].concat());
}

#[tokio::test]
async fn channels_without_ports_are_refused() {
    let served = served().await;
    for ports in [&[][..], &[7; 128]] {
        let (head, _) = connect(&served.port_forward(ports), "v4.channel.k8s.io").await;
        assert!(head.starts_with("http/1.1 400 "), "{head}");
    }
}

#[tokio::test]
async fn a_tunnel_carries_spdy_in_any_pieces() {
    let served = served().await;
    let url = served.port_forward(&[]);
    let (head, mut socket) = connect(&url, "SPDY/3.1+portforward.k8s.io").await;
    assert!(head.contains("sec-websocket-protocol: spdy/3.1+portforward.k8s.io\r\n"), "{head}");
    let (mut encoder, mut bytes) = (Encoder::new(), BytesMut::new());
    let header = |name: &'static str, value: &'static str| (name.into(), value.into());
    for (id, kind) in [(1, "error"), (3, "data")] {
        let headers = vec![header("streamtype", kind), header("port", "7"), header("requestid", "0")];
        encoder.syn_stream(id, false, &Headers(headers), &mut bytes);
    }
    let sent = pattern(100_000);
    for piece in sent.chunks(10_000) {
        frame::data(3, false, piece, &mut bytes);
    }
    frame::data(3, true, &[], &mut bytes);
    for piece in bytes.chunks(997) {
        socket.feed(Message::binary(piece.to_vec())).await.unwrap();
    }
    socket.flush().await.unwrap();
    let (mut decoder, mut buffer, mut got) = (Decoder::new(), BytesMut::new(), Vec::new());
    'reading: loop {
        let Message::Binary(message) = socket.next().await.unwrap().unwrap() else { panic!() };
        buffer.extend_from_slice(&message);
        while let Some(frame) = decoder.next(&mut buffer).unwrap() {
            if let Frame::Data { id: 3, fin, bytes } = frame {
                got.extend_from_slice(&bytes);
                if fin {
                    break 'reading;
                }
            }
        }
    }
    assert!(got == sent);
}
