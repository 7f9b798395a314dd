//! A connection: the streams that the client opens on it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::decoder::Decoder;
use super::frame::{self, Encoder, Frame, ResetStatus};
use super::header_block::Headers;
use crate::idle::{Activity, IDLE};
use crate::stream::{Budget, Handle, Inbox, Incoming, Out, QUEUED, State, inbox};

/// How many bytes are read, or gathered for writing, at once.
const BUFFER: usize = 64 * 1024;
/// How many answers to frames wait for the client, before no more frames are read from it.
const ANSWERS: usize = 64;
/// How long a connection that has said its last stays, for the client to close it. Closing it with bytes unread would
/// make the kernel throw away what is on its way to the client.
const LINGER: Duration = Duration::from_secs(5);

/// GOAWAY's statuses.
const OK: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;

/// A stream that the client has opened, and that has been accepted.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) headers: Headers,
    pub(crate) incoming: Incoming,
    pub(crate) handle: Handle,
}

/// The server's end of a connection.
///
/// Two tasks read and write it. Dropping it aborts both; [`Connection::close`] ends it in good order.
#[derive(Debug)]
pub(crate) struct Connection {
    accepted: mpsc::Receiver<Stream>,
    queue: mpsc::Sender<Out>,
    gone: CancellationToken,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Connection {
    /// Serves `read` and `write`. `before` are bytes that came before; the client may have `limit` streams at a time.
    pub(crate) fn start<R, W>(before: &[u8], read: R, write: W, limit: usize) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let gone = CancellationToken::new();
        let activity = Activity::new();
        let (queue, queued) = mpsc::channel(QUEUED);
        let (answers, answered) = mpsc::channel(ANSWERS);
        let (accept, accepted) = mpsc::channel(limit.max(1));
        let reader = Reader {
            decoder: Decoder::new(),
            buffer: BytesMut::from(before),
            budget: Budget::new(),
            streams: HashMap::new(),
            last: 0,
            leaving: false,
            limit,
            accept,
            answers,
            queue: queue.clone(),
            activity: activity.clone(),
        };
        let activity_of_writer = activity.clone();
        let writer =
            Writer { encoder: Encoder::new(), answers: answered, queue: queued, last: 0, activity: activity_of_writer };
        let reader = tokio::spawn({
            let gone = gone.clone();
            async move {
                // Whatever ends the reading: the client is no longer there, or cannot be understood.
                let _gone = gone.drop_guard();
                tokio::select! {
                    () = reader.run(read) => {}
                    () = activity.silent_for(IDLE) => tracing::debug!("a SPDY connection was silent for four hours"),
                }
            }
        });
        let writer = tokio::spawn({
            let gone = gone.clone();
            async move {
                let written = tokio::select! {
                    () = gone.cancelled() => Ok(()),
                    written = writer.run(write) => written,
                };
                if let Err(error) = written {
                    tracing::debug!(%error, "a SPDY connection cannot be written");
                    gone.cancel();
                }
            }
        });
        Self { accepted, queue, gone, reader, writer }
    }

    /// The next stream that the client opens; nothing when it has left.
    pub(crate) async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }

    /// From now on the client may open no streams.
    pub(crate) fn refuse(&mut self) {
        self.accepted.close();
    }

    /// Fires when the client has left.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Sends what is queued, then says farewell and waits until the client has closed its side, 5 s at most.
    pub(crate) async fn close(mut self) {
        self.refuse();
        let _ = self.queue.send(Out::End).await;
        let _ = (&mut self.writer).await;
        let _ = tokio::time::timeout(LINGER, &mut self.reader).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

/// What is sent in answer to a frame. It goes before all that is queued: a client's ping is answered, and keys reach a
/// process, while the process's output waits for a client that does not read it.
#[derive(Debug)]
enum Answer {
    Reply(u32),
    Pong(u32),
    Reset(u32, ResetStatus),
    Misunderstood(u32),
}

struct Reader {
    decoder: Decoder,
    buffer: BytesMut,
    budget: Budget,
    streams: HashMap<u32, Open>,
    /// The highest id of a stream.
    last: u32,
    /// The client has announced that it opens no more streams.
    leaving: bool,
    limit: usize,
    accept: mpsc::Sender<Stream>,
    answers: mpsc::Sender<Answer>,
    queue: mpsc::Sender<Out>,
    activity: Activity,
}

/// A stream as the reader knows it. Without an inbox the client has ended its side.
struct Open {
    inbox: Option<Inbox>,
    state: Arc<State>,
}

impl Reader {
    /// Reads until the client has left.
    async fn run<R: AsyncRead + Unpin>(mut self, mut read: R) {
        loop {
            match self.decoder.next(&mut self.buffer) {
                Ok(Some(frame)) => self.handle(frame).await,
                Ok(None) => {
                    self.buffer.reserve(BUFFER);
                    match read.read_buf(&mut self.buffer).await {
                        Ok(0) => return,
                        Ok(_) => {}
                        Err(error) => {
                            tracing::debug!(%error, "a SPDY connection cannot be read");
                            return;
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a SPDY connection is closed");
                    let _ = self.answers.send(Answer::Misunderstood(self.last)).await;
                    // The writer closes the connection after that, and tells by dropping its end of the queue.
                    self.answers.closed().await;
                    return;
                }
            }
        }
    }

    async fn handle(&mut self, frame: Frame) {
        if !matches!(frame, Frame::Ping { .. } | Frame::Other { .. }) {
            self.activity.touch();
        }
        match frame {
            Frame::SynStream { id, fin, headers } => self.open(id, fin, headers).await,
            Frame::Data { id, fin, bytes } => {
                // Streams that are not known have been reset: what is on its way for them is dropped.
                let Some(stream) = self.streams.get_mut(&id) else { return };
                if let Some(inbox) = &stream.inbox {
                    self.budget.deliver(bytes, inbox).await;
                }
                if fin {
                    stream.inbox = None;
                    stream.state.remote_ended();
                }
            }
            Frame::Headers { id, fin: true, .. } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.inbox = None;
                    stream.state.remote_ended();
                }
            }
            Frame::RstStream { id, status } => {
                if let Some(stream) = self.streams.remove(&id) {
                    tracing::trace!(id, status, "the client reset a stream");
                    stream.state.reset();
                }
            }
            // Ours would be even; there are none.
            Frame::Ping { id } if id % 2 == 1 => {
                let _ = self.answers.send(Answer::Pong(id)).await;
            }
            Frame::GoAway { .. } => self.leaving = true,
            Frame::SynReply { .. } | Frame::Headers { .. } | Frame::Ping { .. } | Frame::Other { .. } => {}
        }
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) {
        if id.is_multiple_of(2) || id <= self.last {
            return self.refuse(id, ResetStatus::ProtocolError).await;
        }
        self.last = id;
        if self.streams.len() >= self.limit {
            self.streams.retain(|_, stream| !stream.state.is_over());
        }
        if self.leaving || self.streams.len() >= self.limit {
            return self.refuse(id, ResetStatus::RefusedStream).await;
        }
        let Ok(place) = self.accept.try_reserve() else {
            return self.refuse(id, ResetStatus::RefusedStream).await;
        };
        let state = Arc::new(State::default());
        let (inbox, incoming) = inbox();
        let inbox = if fin { None } else { Some(inbox) };
        if fin {
            state.remote_ended();
        }
        self.streams.insert(id, Open { inbox, state: Arc::clone(&state) });
        // The answer is queued before anybody can write on the stream.
        let _ = self.answers.send(Answer::Reply(id)).await;
        place.send(Stream { id, headers, incoming, handle: Handle::new(id, self.queue.clone(), state) });
    }

    async fn refuse(&mut self, id: u32, status: ResetStatus) {
        let _ = self.answers.send(Answer::Reset(id, status)).await;
    }
}

struct Writer {
    encoder: Encoder,
    answers: mpsc::Receiver<Answer>,
    queue: mpsc::Receiver<Out>,
    /// The last stream that was accepted.
    last: u32,
    activity: Activity,
}

impl Writer {
    /// Writes until [`Out::End`], or until the client was told that it is not understood.
    async fn run<W: AsyncWrite + Unpin>(mut self, mut write: W) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        let mut last = false;
        while !last {
            last = tokio::select! {
                biased;
                Some(answer) = self.answers.recv() => self.answer(&answer, &mut buffer),
                Some(out) = self.queue.recv() => self.out(&out, &mut buffer),
                else => true,
            };
            while !last && buffer.len() < BUFFER {
                last = if let Ok(answer) = self.answers.try_recv() {
                    self.answer(&answer, &mut buffer)
                } else if let Ok(out) = self.queue.try_recv() {
                    self.out(&out, &mut buffer)
                } else {
                    break;
                };
            }
            write.write_all_buf(&mut buffer).await?;
            write.flush().await?;
        }
        write.shutdown().await
    }

    /// Whether this is the last frame.
    fn answer(&mut self, answer: &Answer, buffer: &mut BytesMut) -> bool {
        match *answer {
            Answer::Reply(id) => {
                self.last = id;
                self.encoder.syn_reply(id, &Headers::default(), buffer);
            }
            Answer::Pong(id) => frame::ping(id, buffer),
            Answer::Reset(id, status) => frame::rst_stream(id, status, buffer),
            Answer::Misunderstood(last) => frame::go_away(last, PROTOCOL_ERROR, buffer),
        }
        matches!(answer, Answer::Misunderstood(_))
    }

    /// Whether this is the last frame.
    fn out(&mut self, out: &Out, buffer: &mut BytesMut) -> bool {
        self.activity.touch();
        match out {
            Out::Data { id, bytes } => frame::data(*id, false, bytes, buffer),
            Out::Fin { id } => frame::data(*id, true, &[], buffer),
            Out::Reset { id, status } => frame::rst_stream(*id, *status, buffer),
            Out::End => frame::go_away(self.last, OK, buffer),
        }
        matches!(out, Out::End)
    }
}
