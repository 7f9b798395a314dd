//! Further readers of an output stream, beside where it goes anyway.
//!
//! Each has a task and a short queue of its own, so that one that reads at its own pace holds back nobody while the
//! queue has room. A full one holds the stream back, and with it the process, but only for so long.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::fifo::Outlet;
use super::pump::Live;

/// How long a reader may hold the stream back before it is dropped.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The same once the process has ended: less than what an exit waits for output that does not move, or the last of it
/// would be missing where it goes anyway.
pub(super) const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// Pieces that wait for one reader, of at most a pump's buffer.
const QUEUE: usize = 4;

type Piece = Arc<[u8]>;

/// The further readers of one stream.
#[derive(Debug)]
pub(super) struct Taps {
    stream: &'static str,
    state: Mutex<State>,
    exited: watch::Receiver<bool>,
    live: Arc<watch::Sender<usize>>,
}

#[derive(Debug, Default)]
struct State {
    readers: Vec<mpsc::Sender<Piece>>,
    /// The stream has; nobody can join any more.
    ended: bool,
}

impl Taps {
    /// `exited` becomes true when the process has; `live` counts those who still have something to copy.
    pub(super) fn new(
        stream: &'static str,
        exited: watch::Receiver<bool>,
        live: Arc<watch::Sender<usize>>,
    ) -> Arc<Self> {
        Arc::new(Self { stream, state: Mutex::default(), exited, live })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a client read from now on; it holds its `place` until it has left. Of a stream that has ended it sees the
    /// end.
    pub(super) fn add(&self, outlet: Outlet, place: Arc<OwnedSemaphorePermit>) {
        let mut state = self.state();
        if state.ended {
            return;
        }
        let (reader, pieces) = mpsc::channel(QUEUE);
        state.readers.push(reader);
        drop(state);
        // Who waits for the output waits for what readers have been given, too.
        let (stream, exited, live) = (self.stream, self.exited.clone(), Live::new(&self.live));
        tokio::spawn(async move {
            deliver(stream, outlet, pieces, exited).await;
            drop((live, place));
        });
    }

    /// Gives `bytes` to every reader. Those that have left are forgotten, and those that do not read in time.
    pub(super) async fn offer(&self, bytes: &[u8]) {
        let readers = self.state().readers.clone();
        if readers.is_empty() {
            return;
        }
        let piece: Piece = bytes.into();
        // One for all: several that do not read take no longer than one.
        let mut patience = pin!(patience(self.exited.clone()));
        let mut over = false;
        let mut gone = Vec::new();
        for reader in readers {
            let kept = match reader.try_send(Arc::clone(&piece)) {
                Ok(()) => true,
                Err(TrySendError::Closed(_)) => false,
                Err(TrySendError::Full(_)) if over => false,
                Err(TrySendError::Full(piece)) => tokio::select! {
                    sent = reader.send(piece) => sent.is_ok(),
                    () = &mut patience => {
                        over = true;
                        false
                    }
                },
            };
            if !kept {
                gone.push(reader);
            }
        }
        if over {
            tracing::info!("{}: an attached client did not read and is dropped", self.stream);
        }
        if !gone.is_empty() {
            self.state().readers.retain(|reader| !gone.iter().any(|gone| gone.same_channel(reader)));
        }
    }

    /// The stream has ended: so it does for its readers, once they have read what is theirs.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.readers.clear();
    }
}

async fn patience(mut exited: watch::Receiver<bool>) {
    let after_exit = async {
        // An error is the end of the pumps, which is as good.
        let _ = exited.wait_for(|exited| *exited).await;
        tokio::time::sleep(LAST_PATIENCE).await;
    };
    tokio::select! {
        () = tokio::time::sleep(PATIENCE) => {}
        () = after_exit => {}
    }
}

/// Writes to one client until the stream ends, or the client has left, or does not read.
async fn deliver(stream: &str, outlet: Outlet, mut pieces: mpsc::Receiver<Piece>, exited: watch::Receiver<bool>) {
    loop {
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            () = outlet.left() => None,
        };
        let Some(piece) = piece else { return };
        tokio::select! {
            written = outlet.write_all(&piece) => if written.is_err() {
                return;
            },
            () = patience(exited.clone()) => {
                tracing::info!("{stream}: an attached client did not read and is dropped");
                return;
            }
        }
    }
}
