//! Exec and attach over WebSocket.

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;

use super::Codec;
use super::channels::Builder;
use crate::remotecommand::{Call, Open, Streams, run};
use crate::runtime::Runtime;
use crate::status::StatusFormat;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Serves a call on a connection of its own.
pub(crate) async fn serve(
    socket: WebSocketStream<TcpStream>,
    runtime: Arc<dyn Runtime>,
    call: Call,
    (codec, format): (Codec, StatusFormat),
) {
    let wants = call.wants();
    let mut builder = Builder::new();
    let mut readable = |channel, wanted: bool| {
        wanted.then(|| {
            let (incoming, handle) = builder.readable(channel);
            Open { incoming, handle }
        })
    };
    let (stdin, resize) = (readable(STDIN, wants.stdin), readable(RESIZE, wants.resize));
    let stdout = wants.stdout.then(|| builder.writable(STDOUT));
    let stderr = wants.stderr.then(|| builder.writable(STDERR));
    let error = builder.writable(ERROR);
    let channels = builder.start(socket, codec);
    // By an empty message on the first channel that it reads, the client learns that it is connected.
    stdout.as_ref().or(stderr.as_ref()).unwrap_or(&error).send(Bytes::new()).await;
    let streams = Streams { stdin, stdout, stderr, resize, error, gone: channels.gone() };
    run(runtime, call, streams, format).await;
    channels.close().await;
}
