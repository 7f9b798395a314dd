//! Standard input that comes from whoever attaches.
//!
//! It stays open with nobody attached. When it is ended, by a client whose end it is or from outside, what the clients
//! have written so far still arrives.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::pump::{BUFFER, end_input};

/// Pieces that wait for the process.
const QUEUE: usize = 1;

/// Where clients feed a process.
#[derive(Debug)]
pub(super) struct Inlet {
    /// `None`: it has been ended.
    feed: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    ending: watch::Sender<bool>,
}

impl Inlet {
    /// What is fed comes out of the receiver.
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<Vec<u8>>) {
        let (feed, pieces) = mpsc::channel(QUEUE);
        (Arc::new(Self { feed: Mutex::new(Some(feed)), ending: watch::Sender::new(false) }), pieces)
    }

    fn feed(&self) -> Option<mpsc::Sender<Vec<u8>>> {
        let feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        feed.filter(|feed| !feed.is_closed())
    }

    /// Whether a client can still feed it.
    pub(super) fn is_open(&self) -> bool {
        self.feed().is_some()
    }

    /// Feeds what a client writes; with `close` its end is the end of all input.
    pub(super) fn add(self: &Arc<Self>, client: pipe::Receiver, close: bool, place: Arc<OwnedSemaphorePermit>) {
        let Some(feed) = self.feed() else { return };
        let (inlet, ending) = (Arc::clone(self), self.ending.subscribe());
        tokio::spawn(async move {
            let ended = carry(client, feed, ending).await;
            if ended && close {
                inlet.close();
            }
            drop(place);
        });
    }

    /// Ends the input after what has been written to it so far.
    pub(super) fn close(&self) {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.ending.send_replace(true);
    }
}

/// Feeds what a client writes until it ends (true), or the input does.
async fn carry(mut client: pipe::Receiver, feed: mpsc::Sender<Vec<u8>>, mut ending: watch::Receiver<bool>) -> bool {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = tokio::select! {
            read = client.read(&mut buffer) => read.unwrap_or_default(),
            () = told(&mut ending) => {
                while let Some(rest) = read_now(&client, &mut buffer) {
                    if feed.send(rest).await.is_err() {
                        break;
                    }
                }
                return false;
            }
            // The process has ended, or reads no more.
            () = feed.closed() => return false,
        };
        if count == 0 {
            return true;
        }
        if feed.send(buffer.get(..count).unwrap_or_default().to_vec()).await.is_err() {
            return false;
        }
    }
}

/// Resolves when the input is to end.
async fn told(ending: &mut watch::Receiver<bool>) {
    // An error is the end of the pumps, and of the input with them.
    let _ = ending.wait_for(|ending| *ending).await;
}

/// What the FIFO holds now. Read past the runtime, whose idea of readiness may lag behind the kernel's.
fn read_now(client: &pipe::Receiver, buffer: &mut [u8]) -> Option<Vec<u8>> {
    loop {
        match rustix::io::read(client, &mut *buffer) {
            Ok(count @ 1..) => return buffer.get(..count).map(<[u8]>::to_vec),
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return None,
        }
    }
}

/// Writes to the process what is fed, and ends its input when nobody can feed it any more.
pub(super) async fn feed<S: AsyncRead + AsyncWrite + Unpin>(mut pieces: mpsc::Receiver<Vec<u8>>, mut to: S) {
    while let Some(piece) = pieces.recv().await {
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    end_input(to).await;
}
