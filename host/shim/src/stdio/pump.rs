//! Copying between a process's streams in the guest and their ends on the host.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;

use super::attach::CLIENTS_MAX;
use super::cri_log::CriLog;
use super::endpoint::{Endpoints, Sink, Source};
use super::fifo::Input;
use super::inlet::{self, Inlet};
use super::taps::Taps;

/// Bytes in flight per stream, beside what pipes and sockets hold.
pub(super) const BUFFER: usize = 64 * 1024;

/// The copying of one process's streams. Dropping it ends the copying.
#[derive(Debug)]
pub(crate) struct Pumps {
    stdin: Option<AbortHandle>,
    close_stdin: Arc<Notify>,
    /// Where clients that attach feed the process.
    pub(super) inlet: Option<Arc<Inlet>>,
    /// Where they read: stdout's and stderr's.
    pub(super) taps: [Option<Arc<Taps>>; 2],
    /// Places for such clients.
    pub(super) clients: Arc<Semaphore>,
    /// The process has ended.
    exited: watch::Sender<bool>,
    outputs: Vec<AbortHandle>,
    /// Output streams that have not ended, and attached clients that have not got all of them.
    live: watch::Receiver<usize>,
    /// Bytes of output copied so far.
    moved: Arc<AtomicU64>,
    logs: Vec<Arc<CriLog>>,
}

impl Pumps {
    /// Starts copying; `stdin`, `stdout` and `stderr` are the guest's ends of those `endpoints` that exist.
    pub(crate) fn start<S>(endpoints: Endpoints, stdin: Option<S>, stdout: Option<S>, stderr: Option<S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let logs = endpoints.logs();
        let close_stdin = Arc::new(Notify::new());
        let mut inlet = None;
        let stdin = endpoints.stdin.zip(stdin).map(|(source, stream)| match source {
            Source::Fifo(input) => {
                let close = Arc::clone(&close_stdin);
                tokio::spawn(copy_in(input, stream, close)).abort_handle()
            }
            Source::Attached => {
                let (opened, pieces) = Inlet::new();
                inlet = Some(opened);
                tokio::spawn(inlet::feed(pieces, stream)).abort_handle()
            }
        });
        let moved = Arc::new(AtomicU64::new(0));
        let exited = watch::Sender::new(false);
        let (live, watch) = watch::channel(0);
        let live = Arc::new(live);
        let mut outputs = Vec::new();
        let mut copy = |name, pair: Option<(Sink, S)>| {
            let (sink, stream) = pair?;
            let taps = Taps::new(name, exited.subscribe(), Arc::clone(&live));
            let (ended, moved, theirs) = (Live::new(&live), Arc::clone(&moved), Arc::clone(&taps));
            let copying = async move {
                copy_out(name, stream, sink, &theirs, &moved).await;
                theirs.end();
                drop(ended);
            };
            outputs.push(tokio::spawn(copying).abort_handle());
            Some(taps)
        };
        let taps = [copy("stdout", endpoints.stdout.zip(stdout)), copy("stderr", endpoints.stderr.zip(stderr))];
        let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
        Self { stdin, close_stdin, inlet, taps, clients, exited, outputs, live: watch, moved, logs }
    }

    /// Ends standard input after what has been written to it so far.
    pub(crate) fn close_stdin(&self) {
        match &self.inlet {
            Some(inlet) => inlet.close(),
            None => self.close_stdin.notify_one(),
        }
    }

    /// The process has ended: nobody reads its input any more, and its last output is not held back.
    pub(crate) fn process_ended(&self) {
        self.exited.send_replace(true);
        if let Some(stdin) = &self.stdin {
            stdin.abort();
        }
    }

    /// Waits until all output has arrived where it goes.
    pub(crate) async fn drained(&self) {
        // An error means that every copying task has been dropped, which is as good.
        let _ = self.live.clone().wait_for(|live| *live == 0).await;
    }

    /// As [`Pumps::drained`], but gives up when nothing has moved for `idle`, or after `limit` in all: somebody else
    /// may hold the streams open, or nobody reads them.
    pub(crate) async fn drained_or_idle(&self, idle: Duration, limit: Duration) {
        let patience = async {
            loop {
                let before = self.moved.load(Ordering::Relaxed);
                tokio::time::sleep(idle).await;
                if self.moved.load(Ordering::Relaxed) == before {
                    break;
                }
            }
        };
        tokio::select! {
            () = self.drained() => {}
            () = patience => {}
            () = tokio::time::sleep(limit) => {}
        }
    }

    /// Opens the log files anew; how many there are.
    pub(crate) fn reopen_logs(&self) -> io::Result<usize> {
        for log in &self.logs {
            log.reopen()
                .map_err(|error| io::Error::new(error.kind(), format!("log {}: {error}", log.path().display())))?;
        }
        Ok(self.logs.len())
    }
}

impl Drop for Pumps {
    fn drop(&mut self) {
        self.process_ended();
        for output in &self.outputs {
            output.abort();
        }
    }
}

/// Counts a task as copying until it is over, however it ends.
pub(super) struct Live(Arc<watch::Sender<usize>>);

impl Live {
    pub(super) fn new(live: &Arc<watch::Sender<usize>>) -> Self {
        live.send_modify(|live| *live = live.saturating_add(1));
        Self(Arc::clone(live))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.send_modify(|live| *live = live.saturating_sub(1));
    }
}

async fn copy_out(name: &str, mut from: impl AsyncRead + Unpin, mut sink: Sink, taps: &Taps, moved: &AtomicU64) {
    let mut buffer = vec![0; BUFFER];
    // A read error is the end of the VM or of the connection: there is no more output.
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Err(error) = sink.write(bytes).await {
            // The process goes on as with a terminal that has been closed behind `nohup`.
            if error.kind() != io::ErrorKind::BrokenPipe {
                tracing::warn!("{name}: {error}; its further output is discarded");
            }
            sink = Sink::Discard;
        }
        taps.offer(bytes).await;
        moved.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    if let Err(error) = sink.finish().await {
        tracing::warn!("{name}: {error}; its last line is lost");
    }
}

async fn copy_in<S: AsyncRead + AsyncWrite + Unpin>(input: Input, mut to: S, close: Arc<Notify>) {
    let Input { mut receiver, keeper } = input;
    let mut buffer = vec![0; BUFFER];
    let written = loop {
        let count = tokio::select! {
            read = receiver.read(&mut buffer) => read.unwrap_or_default(),
            () = close.notified() => break drain(&receiver, &mut buffer, &mut to).await,
        };
        if count == 0 {
            break Ok(());
        }
        if let Err(error) = to.write_all(buffer.get(..count).unwrap_or_default()).await {
            break Err(error);
        }
    };
    // Whoever still writes learns that nobody reads.
    drop((receiver, keeper));
    if written.is_ok() {
        end_input(to).await;
    }
}

/// Ends the process's input. The connection stays whole until the guest closes it: ours closing first could overtake the
/// last bytes.
pub(super) async fn end_input<S: AsyncRead + AsyncWrite + Unpin>(mut to: S) {
    if to.shutdown().await.is_ok() {
        let mut rest = [0; 64];
        while let Ok(1..) = to.read(&mut rest).await {}
    }
}

/// Copies what the FIFO holds now. Read past the runtime, whose idea of readiness may lag behind the kernel's.
async fn drain(
    receiver: &tokio::net::unix::pipe::Receiver,
    buffer: &mut [u8],
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    loop {
        match rustix::io::read(receiver, &mut *buffer) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(()),
            Ok(count) => to.write_all(buffer.get(..count).unwrap_or_default()).await?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tokio::io::duplex;
    use tokio::net::unix::pipe;

    use super::super::endpoint::{Owner, Request};
    use super::super::fifo::Lifetime;
    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn fifo(&self, name: &str) -> PathBuf {
            let path = self.0.path().join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            path
        }
    }

    fn name(path: &std::path::Path) -> String {
        path.to_str().unwrap().to_owned()
    }

    async fn open(request: Request, lifetime: Lifetime) -> Endpoints {
        let owner = Owner { namespace: "default".into(), container: "web".into() };
        Endpoints::open(&request, &owner, lifetime).await.unwrap()
    }

    async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn input_ends_when_its_only_writer_closes() {
        let place = Place::new();
        let path = place.fifo("in");
        let endpoints = open(Request { stdin: name(&path), ..Request::default() }, Lifetime::Once).await;
        let (ours, mut guest) = duplex(16);
        let _pumps = Pumps::start(endpoints, Some(ours), None, None);
        let mut writer = pipe::OpenOptions::new().open_sender(&path).unwrap();
        writer.write_all(&[7; 1000]).await.unwrap();
        drop(writer);
        assert_eq!(read_all(&mut guest).await, [7; 1000]);
    }

    #[tokio::test]
    async fn kept_input_survives_its_writers_and_ends_with_close_io() {
        let place = Place::new();
        let path = place.fifo("in");
        let endpoints = open(Request { stdin: name(&path), ..Request::default() }, Lifetime::Kept).await;
        let (ours, mut guest) = duplex(16);
        let pumps = Pumps::start(endpoints, Some(ours), None, None);
        for _ in 0..2 {
            let mut writer = pipe::OpenOptions::new().open_sender(&path).unwrap();
            writer.write_all(b"abc").await.unwrap();
            drop(writer);
            let mut read = [0; 3];
            guest.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"abc");
        }
        let mut writer = pipe::OpenOptions::new().open_sender(&path).unwrap();
        writer.write_all(b"last").await.unwrap();
        pumps.close_stdin();
        assert_eq!(read_all(&mut guest).await, b"last");
    }

    #[tokio::test]
    async fn output_reaches_a_fifo_and_ends_with_it() {
        let place = Place::new();
        let path = place.fifo("out");
        let mut reader = pipe::OpenOptions::new().open_receiver(&path).unwrap();
        let endpoints = open(Request { stdout: name(&path), ..Request::default() }, Lifetime::Once).await;
        let (ours, mut guest) = duplex(1024);
        let pumps = Pumps::start(endpoints, None, Some(ours), None);
        let sent = vec![42; 1 << 20];
        let (read, ()) = tokio::join!(read_all(&mut reader), async {
            guest.write_all(&sent).await.unwrap();
            guest.shutdown().await.unwrap();
        });
        pumps.drained().await;
        assert!(read == sent);
    }

    #[tokio::test]
    async fn output_goes_on_when_its_reader_is_gone() {
        let place = Place::new();
        let path = place.fifo("out");
        let reader = pipe::OpenOptions::new().open_receiver(&path).unwrap();
        let endpoints = open(Request { stdout: name(&path), ..Request::default() }, Lifetime::Once).await;
        drop(reader);
        let (ours, mut guest) = duplex(1024);
        let pumps = Pumps::start(endpoints, None, Some(ours), None);
        guest.write_all(&vec![0; 1 << 20]).await.unwrap();
        drop(guest);
        pumps.drained().await;
    }

    #[tokio::test]
    async fn both_streams_share_one_cri_log() {
        let place = Place::new();
        let path = place.0.path().join("0.log");
        let uri = format!("cri-log://{}", path.display());
        let request = Request { stdout: uri.clone(), stderr: uri, ..Request::default() };
        let endpoints = open(request, Lifetime::Once).await;
        let (out, mut guest_out) = duplex(64);
        let (err, mut guest_err) = duplex(64);
        let pumps = Pumps::start(endpoints, None, Some(out), Some(err));
        guest_out.write_all(b"to stdout\nrest").await.unwrap();
        guest_err.write_all(b"to stderr\n").await.unwrap();
        drop((guest_out, guest_err));
        pumps.drained().await;
        assert_eq!(pumps.reopen_logs().unwrap(), 1);
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        lines.sort_unstable();
        assert_eq!(lines, ["stderr F to stderr", "stdout F to stdout", "stdout P rest"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_others_hold_open_is_not_waited_for() {
        let place = Place::new();
        let uri = format!("file://{}", place.0.path().join("out").display());
        let endpoints = open(Request { stdout: uri, ..Request::default() }, Lifetime::Once).await;
        let (ours, _guest) = duplex(64);
        let pumps = Pumps::start(endpoints, None, Some(ours), None);
        pumps.drained_or_idle(Duration::from_secs(1), Duration::from_secs(10)).await;
    }

    #[tokio::test]
    async fn a_terminal_with_a_stderr_is_refused() {
        let owner = Owner { namespace: "default".into(), container: "web".into() };
        let request = Request { stderr: "file:///tmp/x".into(), terminal: true, ..Request::default() };
        assert!(Endpoints::open(&request, &owner, Lifetime::Once).await.is_err());
    }
}
