//! One connection for one stream: the handshake of `agent.proto`, then bytes with back-pressure, since neither side is
//! read faster than the other takes.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use husk_agent_api::{STDIO_ATTACHED, STDIO_UNKNOWN};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::watch;

use super::{Attachment, Direction, End, Streams, Wish};

/// Bytes in flight between a stream and its connection: few for most streams, up to a whole vsock packet for one that
/// keeps filling its buffer, since each packet costs both sides an exit or an interrupt.
const SMALL_BUFFER: usize = 4 << 10;
const LARGE_BUFFER: usize = 64 << 10;
/// The same for each direction of a connection to a port, of which there may be hundreds.
const PORT_BUFFER: usize = 16 << 10;
/// How long a connection may take to name its stream.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// An input that is to be closed is closed when nothing has come for so long: what the host sent before it asked has its
/// own way through the connection.
const QUIET: Duration = Duration::from_millis(50);
/// How long what is left of a removed container's output may take to be read.
const LINGER: Duration = Duration::from_secs(10);

/// How a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The stream is at its end.
    Finished,
    /// The connection was lost; the stream is not.
    Lost,
}

/// Serves one connection to its end.
pub async fn serve<C>(streams: Arc<Streams>, mut connection: C)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(Ok(token)) = tokio::time::timeout(HANDSHAKE, connection.read_u64_le()).await else { return };
    let Some(attachment) = streams.attach(token) else {
        let _ = connection.write_u8(STDIO_UNKNOWN).await;
        let _ = connection.shutdown().await;
        return;
    };
    let wish = attachment.wish.clone();
    let ended = match attachment.direction.clone() {
        Direction::Socket(listener) => return socket(attachment, &listener, connection).await,
        _ if !answer(&mut connection).await => return,
        Direction::Port(place) => {
            let port = place.lock().unwrap_or_else(PoisonError::into_inner).take();
            tokio::select! {
                () = carry(port, connection) => {}
                () = gone(wish) => {}
            }
            return attachment.finish();
        }
        Direction::Output(end) => tokio::select! {
            ended = output(&end, &mut connection) => ended,
            () = removed(wish.clone()) => Ended::Finished,
        },
        Direction::Input { end, terminal } => input(&end, terminal, &mut connection, wish).await,
    };
    finish(attachment, ended, connection).await;
}

/// Tells the host that the stream is its own; false when it has hung up.
async fn answer<C: AsyncWrite + Unpin>(connection: &mut C) -> bool {
    connection.write_u8(STDIO_ATTACHED).await.is_ok()
}

/// Waits for a client of a socket, and carries bytes between it and the host until both directions have ended.
async fn socket<C>(attachment: Attachment, listener: &UnixListener, mut connection: C)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let client = tokio::select! {
        accepted = listener.accept() => accepted,
        () = gone(attachment.wish.clone()) => return,
        // Nothing is due from the host before the answer: it has hung up.
        _ = connection.read_u8() => return,
    };
    // From here on another connection may wait for the next client.
    drop(attachment);
    match client {
        Ok((mut client, _)) => {
            if answer(&mut connection).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut connection).await;
            }
        }
        Err(error) => {
            crate::warning!("accept on a socket of the host: {error}");
            tokio::time::sleep(QUIET).await;
        }
    }
}

/// Carries bytes between a port and the host until both directions have ended, or one has failed.
async fn carry<C: AsyncRead + AsyncWrite + Unpin>(port: Option<TcpStream>, mut connection: C) {
    if let Some(mut port) = port {
        let _ = tokio::io::copy_bidirectional_with_sizes(&mut port, &mut connection, PORT_BUFFER, PORT_BUFFER).await;
    }
}

async fn finish<C>(attachment: Attachment, ended: Ended, mut connection: C)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    match ended {
        Ended::Lost => drop(attachment),
        Ended::Finished => {
            attachment.finish();
            // The peer should see an orderly end, not a reset: give it time to close first.
            if connection.shutdown().await.is_ok() {
                let mut rest = [0; 64];
                let drained = async { while connection.read(&mut rest).await.is_ok_and(|n| n != 0) {} };
                let _ = tokio::time::timeout(LINGER, drained).await;
            }
        }
    }
}

/// Resolves some time after the stream's container has been removed.
async fn removed(mut wish: watch::Receiver<Wish>) {
    while wish.changed().await.is_ok() {}
    tokio::time::sleep(LINGER).await;
}

/// Lets a buffer grow that has just been filled.
fn grow(buffer: &mut Vec<u8>, filled: usize) {
    if filled == buffer.len() && filled < LARGE_BUFFER {
        buffer.resize(filled.saturating_mul(4).min(LARGE_BUFFER), 0);
    }
}

async fn read_end(end: &End, buffer: &mut [u8]) -> std::io::Result<usize> {
    let read = end.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut *buffer)?)).await;
    match read {
        // A pty whose other side nobody holds any more.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Ok(0),
        other => other,
    }
}

async fn write_end(end: &End, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let written = end.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?)).await?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

async fn output<C: AsyncWrite + Unpin>(end: &End, connection: &mut C) -> Ended {
    let mut buffer = vec![0; SMALL_BUFFER];
    loop {
        let Ok(read @ 1..) = read_end(end, &mut buffer).await else { return Ended::Finished };
        if connection.write_all(buffer.get(..read).unwrap_or_default()).await.is_err() {
            return Ended::Lost;
        }
        grow(&mut buffer, read);
    }
}

async fn input<C: AsyncRead + Unpin>(
    end: &End,
    terminal: bool,
    connection: &mut C,
    mut wish: watch::Receiver<Wish>,
) -> Ended {
    let mut buffer = vec![0; SMALL_BUFFER];
    // A half-close ends a pipe; a terminal only loses its writer.
    let end_of_file = if terminal { Ended::Lost } else { Ended::Finished };
    loop {
        let closing = *wish.borrow_and_update() == Wish::Close;
        let read = tokio::select! {
            biased;
            read = connection.read(&mut buffer) => read,
            () = tokio::time::sleep(QUIET), if closing => return Ended::Finished,
            changed = wish.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Ended::Finished,
            },
        };
        let read = match read {
            Ok(0) => return end_of_file,
            Ok(read) => read,
            Err(_) => return Ended::Lost,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        let written = tokio::select! {
            written = write_end(end, bytes) => written,
            () = gone(wish.clone()) => return Ended::Finished,
        };
        // Nobody will ever read it (EPIPE, or EIO of a terminal).
        if written.is_err() {
            return Ended::Finished;
        }
        grow(&mut buffer, read);
    }
}

/// Resolves when the stream has been removed.
async fn gone(mut wish: watch::Receiver<Wish>) {
    while wish.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdio::pipes;
    use husk_agent_api::v1::Stdio;
    use std::io::{Read as _, Write as _};
    use tokio::net::UnixStream;

    const STDIO: Stdio = Stdio { stdin: 1, stdout: 2, stderr: 0 };

    fn streams() -> (Arc<Streams>, std::fs::File, std::fs::File) {
        let streams = Streams::new();
        let uid = rustix::process::getuid().as_raw();
        let (ends, ours) = pipes(&STDIO, uid, rustix::process::getgid().as_raw()).unwrap();
        for (token, direction) in ours {
            streams.add("c", token, direction);
        }
        (streams, ends.stdin.unwrap().into(), ends.stdout.unwrap().into())
    }

    async fn connect(streams: &Arc<Streams>, token: u64) -> (UnixStream, u8) {
        let (mut host, guest) = UnixStream::pair().unwrap();
        tokio::spawn(serve(Arc::clone(streams), guest));
        host.write_u64_le(token).await.unwrap();
        let answer = host.read_u8().await.unwrap();
        (host, answer)
    }

    #[tokio::test]
    async fn output_written_before_anybody_attached_arrives_and_ends() {
        let (streams, _stdin, mut stdout) = streams();
        stdout.write_all(b"early ").unwrap();
        stdout.write_all(b"output").unwrap();
        drop(stdout);
        let (mut host, answer) = connect(&streams, 2).await;
        assert_eq!(answer, STDIO_ATTACHED);
        let mut text = String::new();
        host.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "early output");
        drop(host);
        assert_eq!(connect(&streams, 2).await.1, STDIO_UNKNOWN);
    }

    #[tokio::test]
    async fn an_unknown_or_taken_token_is_refused() {
        let (streams, _stdin, _stdout) = streams();
        assert_eq!(connect(&streams, 99).await.1, STDIO_UNKNOWN);
        let (_first, answer) = connect(&streams, 2).await;
        assert_eq!(answer, STDIO_ATTACHED);
        assert_eq!(connect(&streams, 2).await.1, STDIO_UNKNOWN);
    }

    #[tokio::test]
    async fn a_half_close_is_the_end_of_standard_input() {
        let (streams, stdin, _stdout) = streams();
        let (mut host, _) = connect(&streams, 1).await;
        host.write_all(b"hi").await.unwrap();
        host.shutdown().await.unwrap();
        let text = tokio::task::spawn_blocking(move || std::io::read_to_string(stdin)).await.unwrap().unwrap();
        assert_eq!(text, "hi");
    }

    #[tokio::test]
    async fn closing_standard_input_writes_first_what_has_arrived() {
        let (streams, stdin, _stdout) = streams();
        let (mut host, _) = connect(&streams, 1).await;
        host.write_all(b"last words").await.unwrap();
        streams.close_input(1);
        let text = tokio::task::spawn_blocking(move || std::io::read_to_string(stdin)).await.unwrap().unwrap();
        assert_eq!(text, "last words");
    }

    #[tokio::test]
    async fn closing_an_unattached_input_ends_it() {
        let (streams, mut stdin, _stdout) = streams();
        streams.close_input(1);
        assert_eq!(stdin.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(connect(&streams, 1).await.1, STDIO_UNKNOWN);
    }

    #[tokio::test]
    async fn a_slow_reader_holds_the_writer_back_and_loses_nothing() {
        let (streams, _stdin, mut stdout) = streams();
        let (mut host, _) = connect(&streams, 2).await;
        let data: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let sent = data.clone();
        let writer = tokio::task::spawn_blocking(move || stdout.write_all(&sent));
        let mut received = Vec::new();
        host.read_to_end(&mut received).await.unwrap();
        writer.await.unwrap().unwrap();
        assert!(received == data);
    }

    #[tokio::test]
    async fn a_lost_connection_leaves_the_stream_to_the_next() {
        let (streams, stdin, _stdout) = streams();
        let (host, _) = connect(&streams, 2).await;
        drop(host);
        drop(stdin);
        // The loss shows when something is written to it.
        let mut output = _stdout;
        output.write_all(b"lost").unwrap();
        let (mut host, mut answer) = connect(&streams, 2).await;
        while answer != STDIO_ATTACHED {
            tokio::task::yield_now().await;
            (host, answer) = connect(&streams, 2).await;
        }
        output.write_all(b"kept").unwrap();
        drop(output);
        let mut text = String::new();
        host.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "kept");
    }

    #[tokio::test]
    async fn a_socket_has_a_connection_for_each_client() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let streams = Streams::new();
        assert!(streams.add_socket("volume s", 7, UnixListener::bind(&path).unwrap()));
        for n in 0..3_u8 {
            let (mut host, guest) = UnixStream::pair().unwrap();
            tokio::spawn(serve(Arc::clone(&streams), guest));
            host.write_u64_le(7).await.unwrap();
            let mut client = UnixStream::connect(&path).await.unwrap();
            assert_eq!(host.read_u8().await.unwrap(), STDIO_ATTACHED);
            client.write_all(&[n; 3]).await.unwrap();
            client.shutdown().await.unwrap();
            let mut asked = Vec::new();
            host.read_to_end(&mut asked).await.unwrap();
            host.write_all(b"answer").await.unwrap();
            drop(host);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!((asked, answer.as_str()), (vec![n; 3], "answer"));
        }
        assert!(!streams.add_socket("volume t", 7, UnixListener::bind(dir.path().join("other")).unwrap()));
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_a_client_can_be_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let streams = Streams::new();
        streams.add_socket("volume s", 7, UnixListener::bind(&path).unwrap());
        let (mut first, guest) = UnixStream::pair().unwrap();
        let waiting = tokio::spawn(serve(Arc::clone(&streams), guest));
        first.write_u64_le(7).await.unwrap();
        tokio::task::yield_now().await;
        drop(first);
        waiting.await.unwrap();
        let (mut second, guest) = UnixStream::pair().unwrap();
        let waiting = tokio::spawn(serve(Arc::clone(&streams), guest));
        second.write_u64_le(7).await.unwrap();
        tokio::task::yield_now().await;
        streams.remove(7);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn tokens_are_checked() {
        let (streams, _stdin, _stdout) = streams();
        assert!(streams.check(&Stdio { stdin: 5, stdout: 5, stderr: 0 }).is_err());
        assert!(streams.check(&Stdio { stdin: 1, stdout: 6, stderr: 0 }).is_err());
        assert!(streams.check(&Stdio { stdin: 0, stdout: 0, stderr: 7 }).is_ok());
    }
}
