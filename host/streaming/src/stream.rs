//! The two halves of a stream, whatever protocol carries it.
//!
//! What comes from the client is queued for its reader. All queues of a connection share one [`Budget`]: when it is
//! used up, nothing is read from the client until a reader takes something. What goes to the client waits in one queue
//! of the connection, of [`QUEUED`] frames, so that a writer waits for the client's TCP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::PollSender;

use crate::spdy::frame::{MAX_DATA, ResetStatus};

/// How many frames, each of at most [`MAX_DATA`] bytes, wait for the client.
pub(crate) const QUEUED: usize = 16;
/// How many bytes of a connection wait for their readers.
const BUDGET: usize = 1024 * 1024;
/// What a queued piece costs beside its bytes, so that a client cannot fill the memory with pieces of one byte.
const PIECE: usize = 128;

/// What is sent to the client, in this order.
#[derive(Debug)]
pub(crate) enum Out {
    /// Bytes of a stream.
    Data { id: u32, bytes: Bytes },
    /// A stream's bytes have ended.
    Fin { id: u32 },
    /// A stream has ended in both directions.
    Reset { id: u32, status: ResetStatus },
    /// Nothing follows; the connection is closed.
    End,
}

/// What both directions of a stream know of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The server sends nothing any more.
    local_end: AtomicBool,
    /// The client sends nothing any more.
    remote_end: AtomicBool,
}

impl State {
    /// Whether nothing can come or go any more.
    pub(crate) fn is_over(&self) -> bool {
        self.local_end.load(Ordering::Acquire) && self.remote_end.load(Ordering::Acquire)
    }

    pub(crate) fn remote_ended(&self) {
        self.remote_end.store(true, Ordering::Release);
    }

    /// The client wants no more of the stream, in either direction.
    pub(crate) fn reset(&self) {
        self.local_end.store(true, Ordering::Release);
        self.remote_end.store(true, Ordering::Release);
    }
}

/// How much of what a client sent waits for its readers.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET)))
    }

    /// Queues bytes for the reader of a stream; waits until the budget has room for them. Bytes that nobody will read
    /// are dropped.
    pub(crate) async fn deliver(&self, bytes: Bytes, to: &Inbox) {
        if bytes.is_empty() || to.0.is_closed() {
            return;
        }
        // A piece that is longer than all of the budget takes all of it.
        let cost = u32::try_from(bytes.len().saturating_add(PIECE).min(BUDGET)).unwrap_or(u32::MAX);
        if let Ok(permit) = Arc::clone(&self.0).acquire_many_owned(cost).await {
            let _ = to.0.send(Piece { bytes, _cost: permit });
        }
    }
}

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    _cost: OwnedSemaphorePermit,
}

/// Where a stream's bytes from the client are put. Its end is the stream's.
#[derive(Debug)]
pub(crate) struct Inbox(mpsc::UnboundedSender<Piece>);

/// A stream's bytes from the client.
#[derive(Debug)]
pub(crate) struct Incoming {
    pieces: mpsc::UnboundedReceiver<Piece>,
    current: Option<Piece>,
}

/// A queue whose length the connection's budget bounds.
pub(crate) fn inbox() -> (Inbox, Incoming) {
    let (sender, pieces) = mpsc::unbounded_channel();
    (Inbox(sender), Incoming { pieces, current: None })
}

impl AsyncRead for Incoming {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(piece) = &mut self.current {
                let taken = piece.bytes.len().min(buffer.remaining());
                buffer.put_slice(piece.bytes.get(..taken).unwrap_or_default());
                piece.bytes.advance(taken);
                if piece.bytes.is_empty() {
                    self.current = None;
                }
                return Poll::Ready(Ok(()));
            }
            match ready!(self.pieces.poll_recv(cx)) {
                Some(piece) => self.current = Some(piece),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// A stream's bytes to the client.
///
/// Dropping it ends nothing: what serves the call ends its streams, in the order that the protocol wants.
#[derive(Debug)]
pub(crate) struct Outgoing {
    id: u32,
    queue: PollSender<Out>,
    state: Arc<State>,
}

impl Outgoing {
    fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue.poll_reserve(cx).map_err(|_| gone())
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.state.local_end.load(Ordering::Acquire) {
            return Poll::Ready(Err(gone()));
        }
        let taken = bytes.get(..bytes.len().min(MAX_DATA)).unwrap_or_default();
        if taken.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_place(cx))?;
        let id = self.id;
        self.queue.send_item(Out::Data { id, bytes: Bytes::copy_from_slice(taken) }).map_err(|_| gone())?;
        Poll::Ready(Ok(taken.len()))
    }

    /// What is queued is sent without further asking.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.local_end.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_place(cx))?;
        if !self.state.local_end.swap(true, Ordering::AcqRel) {
            let id = self.id;
            self.queue.send_item(Out::Fin { id }).map_err(|_| gone())?;
        }
        Poll::Ready(Ok(()))
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client has closed this stream or has left")
}

/// By which whoever serves a call ends its streams.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    id: u32,
    queue: mpsc::Sender<Out>,
    state: Arc<State>,
}

impl Handle {
    pub(crate) fn new(id: u32, queue: mpsc::Sender<Out>, state: Arc<State>) -> Self {
        Self { id, queue, state }
    }

    /// A writer of the stream's bytes.
    pub(crate) fn outgoing(&self) -> Outgoing {
        Outgoing { id: self.id, queue: PollSender::new(self.queue.clone()), state: Arc::clone(&self.state) }
    }

    /// Sends `bytes` as one message or frame where the protocol has such; at most [`MAX_DATA`] of them.
    pub(crate) async fn send(&self, bytes: Bytes) {
        let _ = self.queue.send(Out::Data { id: self.id, bytes }).await;
    }

    /// Ends the server's side of the stream, behind all that was written.
    pub(crate) async fn finish(&self) {
        if !self.state.local_end.swap(true, Ordering::AcqRel) {
            let _ = self.queue.send(Out::Fin { id: self.id }).await;
        }
    }

    /// Ends both sides of the stream, behind all that was written; does nothing when they have ended.
    pub(crate) async fn reset(&self, status: ResetStatus) {
        if !self.state.is_over() {
            self.state.reset();
            let _ = self.queue.send(Out::Reset { id: self.id, status }).await;
        }
    }
}
