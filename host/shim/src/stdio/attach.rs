//! Joining the streams of a process that runs.

use std::sync::Arc;

use super::client::Client;
use super::endpoint::{OpenError, Request};
use super::pump::Pumps;

/// Most clients of one process at a time.
pub(super) const CLIENTS_MAX: usize = 64;

/// Why a client could not join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("it was created without {stream}, so there is none to attach to{hint}")]
    NoStream { stream: &'static str, hint: &'static str },
    #[error("its stdin has ended")]
    InputEnded,
    #[error("{CLIENTS_MAX} clients are attached, which is the most; let one leave first")]
    TooMany,
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Pumps {
    /// Copies what the process writes from now on to the FIFOs of `names`, too, and feeds it what comes from there; with
    /// `close_stdin` the end of the client's input is the end of the process's.
    pub(crate) fn attach(&self, names: &Request, close_stdin: bool) -> Result<(), AttachError> {
        if names.terminal && !names.stderr.is_empty() {
            return Err(OpenError::TerminalStderr { name: names.stderr.clone() }.into());
        }
        let [stdout, stderr] = &self.taps;
        let wanted = [
            ("stdin", &names.stdin, self.inlet.is_some(), ": that takes stdin attach://"),
            ("stdout", &names.stdout, stdout.is_some(), ""),
            ("stderr", &names.stderr, stderr.is_some(), ""),
        ];
        for (stream, name, exists, hint) in wanted {
            if !name.is_empty() && !exists {
                return Err(AttachError::NoStream { stream, hint });
            }
        }
        if !names.stdin.is_empty() && !self.inlet.as_ref().is_some_and(|inlet| inlet.is_open()) {
            return Err(AttachError::InputEnded);
        }
        let place = Arc::clone(&self.clients).try_acquire_owned().map_err(|_| AttachError::TooMany)?;
        let place = Arc::new(place);
        let client = Client::open(names)?;
        for (taps, outlet) in [(stdout, client.stdout), (stderr, client.stderr)] {
            if let (Some(taps), Some(outlet)) = (taps, outlet) {
                taps.add(outlet, Arc::clone(&place));
            }
        }
        if let (Some(inlet), Some(stdin)) = (&self.inlet, client.stdin) {
            inlet.add(stdin, close_stdin, place);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::unix::pipe;

    use super::super::endpoint::{Endpoints, Owner};
    use super::super::fifo::Lifetime;
    use super::super::taps::{LAST_PATIENCE, PATIENCE};
    use super::*;

    /// A process whose stdout goes to a file and whose stdin comes from whoever attaches.
    struct Bench {
        place: tempfile::TempDir,
        pumps: Pumps,
        /// The process's ends.
        stdin: DuplexStream,
        stdout: DuplexStream,
        clients: usize,
    }

    /// A client's ends.
    struct Joined {
        stdin: pipe::Sender,
        stdout: pipe::Receiver,
    }

    impl Bench {
        async fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let stdout = format!("file://{}", place.path().join("log").display());
            let request = Request { stdin: "attach://".into(), stdout, ..Request::default() };
            let owner = Owner { namespace: "default".into(), container: "web".into() };
            let endpoints = Endpoints::open(&request, &owner, Lifetime::Once).await.unwrap();
            let ((in_ours, stdin), (out_ours, stdout)) = (duplex(64), duplex(1 << 16));
            let pumps = Pumps::start(endpoints, Some(in_ours), Some(out_ours), None);
            Self { place, pumps, stdin, stdout, clients: 0 }
        }

        fn fifo(&mut self) -> PathBuf {
            self.clients += 1;
            let path = self.place.path().join(self.clients.to_string());
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            path
        }

        fn attach(&mut self, close_stdin: bool) -> Joined {
            let (stdin, stdout) = (self.fifo(), self.fifo());
            let reader = pipe::OpenOptions::new().open_receiver(&stdout).unwrap();
            let names = Request { stdin: name(&stdin), stdout: name(&stdout), ..Request::default() };
            self.pumps.attach(&names, close_stdin).unwrap();
            let writer = pipe::OpenOptions::new().open_sender(&stdin).unwrap();
            Joined { stdin: writer, stdout: reader }
        }

        fn log(&self) -> Vec<u8> {
            std::fs::read(self.place.path().join("log")).unwrap()
        }

        async fn everybody_has_left(&self) {
            let all = u32::try_from(CLIENTS_MAX).unwrap();
            drop(self.pumps.clients.acquire_many(all).await.unwrap());
        }
    }

    fn name(path: &Path) -> String {
        path.to_str().unwrap().to_owned()
    }

    async fn expect(stream: &mut (impl AsyncReadExt + Unpin), text: &str) {
        let mut bytes = vec![0; text.len()];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, text.as_bytes());
    }

    async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn everybody_reads_what_comes_after_they_joined() {
        let mut bench = Bench::new().await;
        let mut first = bench.attach(false);
        bench.stdout.write_all(b"one ").await.unwrap();
        expect(&mut first.stdout, "one ").await;
        let mut second = bench.attach(false);
        bench.stdout.write_all(b"two ").await.unwrap();
        expect(&mut first.stdout, "two ").await;
        drop(first);
        expect(&mut second.stdout, "two ").await;
        bench.stdout.write_all(b"three").await.unwrap();
        bench.stdout.shutdown().await.unwrap();
        assert_eq!(rest(&mut second.stdout).await, b"three");
        bench.pumps.drained().await;
        assert_eq!(bench.log(), b"one two three");
        // A stream that has ended is at its end for who joins now.
        let mut late = bench.attach(false);
        assert_eq!(rest(&mut late.stdout).await, b"");
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_forgotten_while_the_process_is_silent() {
        let mut bench = Bench::new().await;
        for _ in 0..3 * CLIENTS_MAX {
            drop(bench.attach(false));
            bench.everybody_has_left().await;
        }
    }

    #[tokio::test]
    async fn there_is_a_most() {
        let mut bench = Bench::new().await;
        let mut all: Vec<Joined> = (0..CLIENTS_MAX).map(|_| bench.attach(false)).collect();
        let names = Request { stdout: name(&bench.fifo()), ..Request::default() };
        assert!(matches!(bench.pumps.attach(&names, false), Err(AttachError::TooMany)));
        bench.stdout.write_all(b"all").await.unwrap();
        for client in &mut all {
            expect(&mut client.stdout, "all").await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_dropped_and_the_log_is_whole() {
        let mut bench = Bench::new().await;
        let slow = bench.attach(false);
        let mut quick = bench.attach(false);
        let sent: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let began = tokio::time::Instant::now();
        let reading = tokio::spawn(async move { rest(&mut quick.stdout).await });
        bench.stdout.write_all(&sent).await.unwrap();
        bench.stdout.shutdown().await.unwrap();
        bench.pumps.drained().await;
        assert!(began.elapsed() >= PATIENCE && began.elapsed() < 3 * PATIENCE, "{:?}", began.elapsed());
        assert!(bench.log() == sent);
        assert!(reading.await.unwrap() == sent);
        let mut slow = slow;
        let got = rest(&mut slow.stdout).await;
        assert!(got.len() < sent.len() && sent.starts_with(&got), "{}", got.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_hardly_delays_an_exit() {
        let mut bench = Bench::new().await;
        let _slow = bench.attach(false);
        let sent = vec![7; 1_000_000];
        let began = tokio::time::Instant::now();
        let writing = async {
            bench.stdout.write_all(&sent).await.unwrap();
            bench.stdout.shutdown().await.unwrap();
        };
        bench.pumps.process_ended();
        tokio::join!(writing, bench.pumps.drained());
        assert!(began.elapsed() < 2 * LAST_PATIENCE, "{:?}", began.elapsed());
        assert!(bench.log() == sent);
    }

    #[tokio::test]
    async fn input_stays_open_until_it_is_closed() {
        let mut bench = Bench::new().await;
        for text in ["first", "second"] {
            let mut client = bench.attach(false);
            client.stdin.write_all(text.as_bytes()).await.unwrap();
            drop(client);
            expect(&mut bench.stdin, text).await;
        }
        let mut client = bench.attach(false);
        client.stdin.write_all(b"last").await.unwrap();
        bench.pumps.close_stdin();
        assert_eq!(rest(&mut bench.stdin).await, b"last");
        let (stdin, stdout) = (bench.fifo(), bench.fifo());
        let names = Request { stdin: name(&stdin), ..Request::default() };
        assert!(matches!(bench.pumps.attach(&names, false), Err(AttachError::InputEnded)));
        // Output alone can still be had.
        let _reader = pipe::OpenOptions::new().open_receiver(&stdout).unwrap();
        bench.pumps.attach(&Request { stdout: name(&stdout), ..Request::default() }, false).unwrap();
    }

    #[tokio::test]
    async fn the_end_of_a_client_can_be_the_end_of_all_input() {
        let mut bench = Bench::new().await;
        let mut other = bench.attach(false);
        let mut once = bench.attach(true);
        other.stdin.write_all(b"other ").await.unwrap();
        expect(&mut bench.stdin, "other ").await;
        once.stdin.write_all(&[9; 100_000]).await.unwrap();
        drop(once.stdin);
        assert_eq!(rest(&mut bench.stdin).await, [9; 100_000]);
        drop(bench.stdin);
        // Whoever still writes learns that nobody reads.
        while other.stdin.write_all(b"more").await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        let mut bench = Bench::new().await;
        let fifo = name(&bench.fifo());
        let stderr = Request { stderr: fifo.clone(), ..Request::default() };
        let error = bench.pumps.attach(&stderr, false).unwrap_err();
        assert!(matches!(error, AttachError::NoStream { stream: "stderr", .. }), "{error}");
        let terminal = Request { terminal: true, ..stderr };
        assert!(matches!(bench.pumps.attach(&terminal, false), Err(AttachError::Open(_))));
        // Nobody would ever read it.
        let unread = Request { stdout: fifo, ..Request::default() };
        assert!(matches!(bench.pumps.attach(&unread, false), Err(AttachError::Open(_))));
        let file = Request { stdout: "file:///tmp/x".into(), ..Request::default() };
        assert!(matches!(bench.pumps.attach(&file, false), Err(AttachError::Open(_))));

        let endpoints = Endpoints::default();
        let nothing = Pumps::start::<DuplexStream>(endpoints, None, None, None);
        let names = Request { stdin: name(&bench.fifo()), ..Request::default() };
        let error = nothing.attach(&names, false).unwrap_err();
        assert!(error.to_string().contains("attach://"), "{error}");
    }
}
