//! A connection whose messages begin with the number of their channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::Codec;
use crate::idle::{Activity, IDLE};
use crate::stream::{Budget, Handle, Inbox, Incoming, Out, QUEUED, State, inbox};

/// The channel on which the client closes another one.
const CLOSE: u8 = 255;
/// How long a connection that was closed here waits for the client to close it too.
const LINGER: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TcpStream>;

/// Channels before anything is read from the client.
pub(super) struct Builder {
    queue: mpsc::Sender<Out>,
    queued: mpsc::Receiver<Out>,
    inboxes: HashMap<u8, (Inbox, Arc<State>)>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let (queue, queued) = mpsc::channel(QUEUED);
        Self { queue, queued, inboxes: HashMap::new() }
    }

    /// A channel that the client reads.
    pub(super) fn writable(&self, channel: u8) -> Handle {
        Handle::new(channel.into(), self.queue.clone(), Arc::default())
    }

    /// A channel that the client writes, and may read.
    pub(super) fn readable(&mut self, channel: u8) -> (Incoming, Handle) {
        let state = Arc::new(State::default());
        let (inbox, incoming) = inbox();
        self.inboxes.insert(channel, (inbox, Arc::clone(&state)));
        (incoming, Handle::new(channel.into(), self.queue.clone(), state))
    }

    /// Begins to read and write.
    pub(super) fn start(self, socket: Socket, codec: Codec) -> Channels {
        let gone = CancellationToken::new();
        let activity = Activity::new();
        let (sink, stream) = socket.split();
        let reader = Reader { codec, inboxes: self.inboxes, budget: Budget::new(), activity: activity.clone() };
        let writer = Writer { codec, queued: self.queued, activity: activity.clone() };
        let reader = tokio::spawn({
            let gone = gone.clone();
            async move {
                let left = gone.clone();
                let _gone = gone.drop_guard();
                tokio::select! {
                    () = reader.run(stream, left) => {}
                    () = activity.silent_for(IDLE) => tracing::debug!("a WebSocket was silent for four hours"),
                }
            }
        });
        let writer = tokio::spawn({
            let gone = gone.clone();
            async move {
                let written = tokio::select! {
                    () = gone.cancelled() => Ok(()),
                    written = writer.run(sink) => written,
                };
                if let Err(error) = written {
                    tracing::debug!(%error, "a WebSocket cannot be written");
                    gone.cancel();
                }
            }
        });
        Channels { queue: self.queue, gone, reader, writer }
    }
}

/// A connection. Two tasks read and write it. Dropping it aborts both; [`Channels::close`] ends it in good order.
pub(super) struct Channels {
    queue: mpsc::Sender<Out>,
    gone: CancellationToken,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Channels {
    /// Fires when the client has left.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Sends what is queued, closes, and waits until the client has closed its side, 5 s at most.
    pub(super) async fn close(mut self) {
        let _ = self.queue.send(Out::End).await;
        let _ = (&mut self.writer).await;
        let _ = tokio::time::timeout(LINGER, &mut self.reader).await;
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

struct Reader {
    codec: Codec,
    inboxes: HashMap<u8, (Inbox, Arc<State>)>,
    budget: Budget,
    activity: Activity,
}

impl Reader {
    /// Reads until the client has left, which `left` tells before the farewells are over.
    async fn run(mut self, mut stream: SplitStream<Socket>, left: CancellationToken) {
        while let Some(message) = stream.next().await {
            let message = match message {
                Ok(Message::Binary(bytes)) => bytes,
                Ok(Message::Text(text)) => text.into(),
                // Answered by the library, with the next read.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Ok(Message::Close(_)) => {
                    left.cancel();
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, "a WebSocket cannot be read");
                    return;
                }
            };
            self.activity.touch();
            if let Err(why) = self.deliver(message).await {
                tracing::debug!(why, "a WebSocket is closed");
                return;
            }
        }
    }

    async fn deliver(&mut self, message: Bytes) -> Result<(), &'static str> {
        let Some((channel, rest)) = message.split_first() else { return Ok(()) };
        if self.codec == Codec::BinaryWithClose && *channel == CLOSE {
            let [closed] = rest else { return Err("a close signal names no channel, or more than one") };
            if let Some((_, state)) = self.inboxes.remove(closed) {
                state.remote_ended();
            }
            return Ok(());
        }
        let (channel, bytes) = match self.codec {
            Codec::Binary | Codec::BinaryWithClose => (*channel, Bytes::copy_from_slice(rest)),
            Codec::Base64 => {
                let bytes = STANDARD.decode(rest).map_err(|_| "a message is not base64")?;
                (channel.wrapping_sub(b'0'), Bytes::from(bytes))
            }
        };
        // What comes on other channels nobody asked for.
        if let Some((inbox, _)) = self.inboxes.get(&channel) {
            self.budget.deliver(bytes, inbox).await;
        }
        Ok(())
    }
}

struct Writer {
    codec: Codec,
    queued: mpsc::Receiver<Out>,
    activity: Activity,
}

impl Writer {
    async fn run(mut self, mut sink: SplitSink<Socket, Message>) -> Result<(), Error> {
        while let Some(mut out) = self.queued.recv().await {
            loop {
                self.activity.touch();
                match out {
                    Out::Data { id, bytes } => sink.feed(message(self.codec, id, &bytes)).await?,
                    // Channels to the client end with the connection alone.
                    Out::Fin { .. } | Out::Reset { .. } => {}
                    Out::End => {
                        let farewell = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                        return sink.send(Message::Close(Some(farewell))).await;
                    }
                }
                match self.queued.try_recv() {
                    Ok(next) => out = next,
                    Err(_) => break,
                }
            }
            sink.flush().await?;
        }
        Ok(())
    }
}

fn message(codec: Codec, channel: u32, bytes: &[u8]) -> Message {
    // Channels have been made of a u8.
    let channel = u8::try_from(channel).unwrap_or(u8::MAX);
    match codec {
        Codec::Binary | Codec::BinaryWithClose => {
            let mut message = BytesMut::with_capacity(bytes.len().saturating_add(1));
            message.put_u8(channel);
            message.put_slice(bytes);
            Message::Binary(message.freeze())
        }
        Codec::Base64 => {
            let mut message = String::from(char::from(b'0'.wrapping_add(channel)));
            STANDARD.encode_string(bytes, &mut message);
            Message::text(message)
        }
    }
}
