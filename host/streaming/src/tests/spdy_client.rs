//! A client that speaks SPDY/3.1.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};

use crate::spdy::Decoder;
use crate::spdy::frame::{self, Encoder, Frame};
use crate::spdy::header_block::Headers;

/// What has come on a stream.
#[derive(Debug, Default)]
pub(super) struct Came {
    pub(super) replied: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) ended: bool,
    pub(super) reset: Option<u32>,
}

pub(super) struct Client {
    /// The reply's head.
    pub(super) head: String,
    write: OwnedWriteHalf,
    encoder: Encoder,
    frames: mpsc::UnboundedReceiver<Frame>,
    /// Whether the client reads what comes.
    reads: watch::Sender<bool>,
    next: u32,
    pub(super) streams: HashMap<u32, Came>,
    pub(super) pongs: Vec<u32>,
    pub(super) goaway: Option<u32>,
}

/// Splits a URL into its address and its path.
pub(super) fn parts(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap();
    let (address, _) = rest.split_once('/').unwrap();
    (address, rest.strip_prefix(address).unwrap())
}

/// Sends a request; returns the reply's head and the connection.
pub(super) async fn request(url: &str, method: &str, headers: &str) -> (String, TcpStream) {
    let (address, path) = parts(url);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (String::from_utf8(head).unwrap().to_ascii_lowercase(), stream)
}

pub(super) fn upgrade(protocols: &[&str]) -> String {
    let mut headers = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n".to_owned();
    for protocol in protocols {
        headers += &format!("X-Stream-Protocol-Version: {protocol}\r\n");
    }
    headers
}

impl Client {
    pub(super) async fn connect(url: &str, protocols: &[&str]) -> Self {
        let (head, stream) = request(url, "POST", &upgrade(protocols)).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        let (mut read, write) = stream.into_split();
        let (sender, frames) = mpsc::unbounded_channel();
        let (reads, mut may_read) = watch::channel(true);
        tokio::spawn(async move {
            let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::new());
            while may_read.wait_for(|may| *may).await.is_ok() {
                while let Some(frame) = decoder.next(&mut buffer).unwrap() {
                    let _ = sender.send(frame);
                }
                if read.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        });
        Self {
            head,
            write,
            encoder: Encoder::new(),
            frames,
            reads,
            next: 1,
            streams: HashMap::new(),
            pongs: Vec::new(),
            goaway: None,
        }
    }

    pub(super) fn read(&self, reads: bool) {
        self.reads.send_replace(reads);
    }

    /// Opens a stream and waits until it is accepted or reset.
    pub(super) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next;
        self.next += 2;
        self.open_as(id, headers).await;
        id
    }

    pub(super) async fn open_as(&mut self, id: u32, headers: &[(&str, &str)]) {
        let pair = |(name, value): &(&str, &str)| {
            (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
        };
        let mut bytes = BytesMut::new();
        self.encoder.syn_stream(id, false, &Headers(headers.iter().map(pair).collect()), &mut bytes);
        self.write.write_all(&bytes).await.unwrap();
        self.until(|client| client.streams.get(&id).is_some_and(|came| came.replied || came.reset.is_some())).await;
    }

    /// Opens streams of these types.
    pub(super) async fn open_all<const N: usize>(&mut self, types: [&str; N]) -> [u32; N] {
        let mut ids = [0; N];
        for (id, kind) in ids.iter_mut().zip(types) {
            *id = self.open(&[("streamtype", kind)]).await;
        }
        ids
    }

    pub(super) async fn send(&mut self, id: u32, bytes: &[u8]) {
        for piece in bytes.chunks(frame::MAX_DATA) {
            let mut out = BytesMut::new();
            frame::data(id, false, piece, &mut out);
            self.write.write_all(&out).await.unwrap();
        }
    }

    pub(super) async fn finish(&mut self, id: u32) {
        let mut out = BytesMut::new();
        frame::data(id, true, &[], &mut out);
        self.write.write_all(&out).await.unwrap();
    }

    pub(super) async fn send_raw(&mut self, bytes: &[u8]) {
        self.write.write_all(bytes).await.unwrap();
    }

    pub(super) async fn ping(&mut self, id: u32) {
        let mut out = BytesMut::new();
        frame::ping(id, &mut out);
        self.write.write_all(&out).await.unwrap();
    }

    /// Reads frames until this is so. Panics when the server closes the connection before.
    pub(super) async fn until(&mut self, so: impl Fn(&Self) -> bool) {
        while !so(self) {
            let frame = self.frames.recv().await.expect("the server closed the connection");
            self.take(frame);
        }
    }

    /// Reads frames until the server closes the connection.
    pub(super) async fn until_closed(&mut self) {
        while let Some(frame) = self.frames.recv().await {
            self.take(frame);
        }
    }

    /// The text that came on a stream.
    pub(super) fn text(&self, id: u32) -> &str {
        std::str::from_utf8(&self.streams[&id].bytes).unwrap()
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::SynReply { id, .. } => self.streams.entry(id).or_default().replied = true,
            Frame::Data { id, fin, bytes } => {
                let came = self.streams.get_mut(&id).unwrap();
                assert!(!came.ended, "bytes behind the end of stream {id}");
                came.bytes.extend_from_slice(&bytes);
                came.ended = fin;
            }
            Frame::RstStream { id, status } => self.streams.entry(id).or_default().reset = Some(status),
            Frame::Ping { id } => self.pongs.push(id),
            Frame::GoAway { status, .. } => self.goaway = Some(status),
            other => panic!("{other:?}"),
        }
    }
}
