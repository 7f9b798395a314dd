//! ExecSync: a command's whole output in one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use husk_client::{FifoStreams, Wanted};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::super::Engine;
use crate::api::ExecSyncResponse;
use crate::error::Error;
use crate::state::Container;

/// Most bytes of both streams together. The answer must fit into a message of 16 MiB; what is beyond is read and
/// dropped, so that no command fills the daemon's memory (CVE-2022-1708 of peers).
const OUTPUT_MAX: usize = 15 << 20;
const BUFFER: usize = 64 * 1024;

impl Engine {
    /// Runs a command to its end, or for `limit` at most; zero is without limit.
    pub(in crate::runtime) async fn exec_sync(
        self: &Arc<Self>,
        container: &Arc<Container>,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecSyncResponse, Error> {
        let wanted = Wanted { stdout: true, stderr: true, ..Wanted::default() };
        let (exec, FifoStreams { stdout, stderr, .. }) = self.exec(container, command, wanted).await?;
        let room = Arc::new(AtomicUsize::new(OUTPUT_MAX));
        let reading = [stdout, stderr].map(|stream| tokio::spawn(read(stream, Arc::clone(&room))));
        let waiting = exec.wait();
        let ended = if limit.is_zero() { Some(waiting.await) } else { timeout(limit, waiting).await.ok() };
        // With it the streams end, even if a process that it left behind holds them.
        exec.end().await;
        let Some(ended) = ended else {
            let text = format!("command {command:?} timed out: it ran longer than {limit:?}");
            return Err(Error::DeadlineExceeded(text));
        };
        let [stdout, stderr] = reading;
        Ok(ExecSyncResponse {
            stdout: stdout.await.unwrap_or_default(),
            stderr: stderr.await.unwrap_or_default(),
            exit_code: i32::try_from(ended?.code).unwrap_or(i32::MAX),
        })
    }
}

/// All of a stream, as far as there is room.
async fn read(stream: Option<impl AsyncRead + Unpin>, room: Arc<AtomicUsize>) -> Vec<u8> {
    let mut all = Vec::new();
    let Some(mut stream) = stream else { return all };
    let mut buffer = vec![0; BUFFER];
    // An error is the end of the pod: there is no more output.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let before = room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(count)));
        let taken = count.min(before.unwrap_or_default());
        all.extend_from_slice(buffer.get(..taken).unwrap_or_default());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_streams_share_the_room_of_an_answer() {
        let room = Arc::new(AtomicUsize::new(10));
        assert_eq!(read(Some(&b"12345678"[..]), Arc::clone(&room)).await, b"12345678");
        assert_eq!(read(Some(&b"12345678"[..]), Arc::clone(&room)).await, b"12");
        assert_eq!(read(Some(&b"12345678"[..]), room).await, b"");
    }
}
