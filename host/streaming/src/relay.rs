//! Carries bytes between a client's stream and a connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::runtime::DataStream;

/// How long one direction lives on without a byte after the other has ended. containerd gives it a second in all.
const HALF_OPEN: Duration = Duration::from_secs(1);
/// How many bytes are carried at once.
const BUFFER: usize = 32 * 1024;

/// Carries bytes between `stream` and `target`, both ways, until both directions have ended.
///
/// When one direction has ended, so that its receiver has all of its bytes and knows that there are no more, the other
/// one may go on for as long as bytes flow or wait for their receiver; after a second of silence it is closed too. The
/// end of an established connection is not a failure however it came about, so none is returned.
pub async fn relay<T: AsyncRead + AsyncWrite + Send>(stream: DataStream, target: T) {
    let (client_reader, client_writer) = stream.into_split();
    let (target_reader, target_writer) = tokio::io::split(target);
    let (mut up, mut down) = (Direction::new(), Direction::new());
    let up_state = up.state.subscribe();
    let down_state = down.state.subscribe();
    let up = up.carry(client_reader, target_writer);
    let down = down.carry(target_reader, client_writer);
    tokio::pin!(up, down);
    let (ended, other) = tokio::select! {
        ended = &mut up => (ended, Other::Down),
        ended = &mut down => (ended, Other::Up),
    };
    log(&ended);
    let ended = match other {
        Other::Down => silence_or(down_state, down).await,
        Other::Up => silence_or(up_state, up).await,
    };
    log(&ended);
}

enum Other {
    Up,
    Down,
}

fn log(ended: &io::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a forwarded connection has ended");
    }
}

/// What one direction is doing, and since when.
#[derive(Clone, Copy)]
enum Doing {
    /// It waits for bytes.
    Reading(Instant),
    /// It has bytes that its receiver has not taken.
    Writing,
}

struct Direction {
    state: tokio::sync::watch::Sender<Doing>,
}

impl Direction {
    fn new() -> Self {
        Self { state: tokio::sync::watch::Sender::new(Doing::Reading(Instant::now())) }
    }

    async fn carry(
        &mut self,
        mut from: impl AsyncRead + Send + Unpin,
        mut to: impl AsyncWrite + Send + Unpin,
    ) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            self.state.send_replace(Doing::Reading(Instant::now()));
            let count = from.read(&mut buffer).await?;
            self.state.send_replace(Doing::Writing);
            if count == 0 {
                return to.shutdown().await;
            }
            to.write_all(buffer.get(..count).unwrap_or_default()).await?;
            to.flush().await?;
        }
    }
}

/// Waits for the end of a direction, or for a second in which it had nothing to carry.
async fn silence_or(
    mut state: tokio::sync::watch::Receiver<Doing>,
    direction: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let other_ended = Instant::now();
    let silence = async {
        loop {
            let doing = *state.borrow_and_update();
            match doing {
                Doing::Reading(since) => {
                    let until = since.max(other_ended) + HALF_OPEN;
                    if tokio::time::timeout_at(until, state.changed()).await.is_err() {
                        return;
                    }
                }
                Doing::Writing => {
                    if state.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        biased;
        ended = direction => ended,
        () = silence => Ok(()),
    }
}
