//! Standard streams: one vsock connection each, claimed by a token.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use husk_agent_api::{STDIO_ATTACHED, STDIO_PORT, STDIO_UNKNOWN, v1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

use super::vsock::{ConnectError, connect};

/// Which streams a process is to have; the others are `/dev/null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StdioWanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// One pty for all: its input is stdin, its output stdout; there is no stderr.
    pub terminal: bool,
}

/// The host's ends of a process's standard streams.
#[derive(Debug, Default)]
pub struct ProcessStreams {
    pub stdin: Option<Stream>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
}

/// A raw byte stream with back-pressure. Shutting it down for writing is the end of file of that direction only.
#[derive(Debug)]
pub struct Stream(UnixStream);

impl Stream {
    /// The connected unix socket below it.
    #[must_use]
    pub fn into_inner(self) -> UnixStream {
        self.0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("{name} cannot be connected: {source}")]
    Connect { name: &'static str, source: ConnectError },
    #[error("{name} cannot be connected: {source}")]
    Io { name: &'static str, source: std::io::Error },
    #[error("{name} cannot be connected: the guest agent does not know the stream")]
    Unknown { name: &'static str },
    #[error("{name} cannot be connected: the guest agent answered byte {answer}")]
    Answer { name: &'static str, answer: u8 },
    #[error("{name} was not connected within {after:?}; on a slow machine raise HUSK_TIMEOUT_SCALE")]
    Deadline { name: &'static str, after: Duration },
    #[error("the kernel gave no random numbers: {0}")]
    Random(#[source] std::io::Error),
}

/// Random, unequal and not zero: whoever knows one owns the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tokens(v1::Stdio);

impl Tokens {
    pub(crate) fn random(wanted: StdioWanted) -> Result<Self, StreamError> {
        let mut drawn = Vec::with_capacity(3);
        while drawn.len() < 3 {
            let token = random_u64().map_err(StreamError::Random)?;
            if token != 0 && !drawn.contains(&token) {
                drawn.push(token);
            }
        }
        let mut token = |wanted: bool| drawn.pop().filter(|_| wanted).unwrap_or(0);
        Ok(Self(v1::Stdio {
            stdin: token(wanted.stdin),
            stdout: token(wanted.stdout),
            stderr: token(wanted.stderr && !wanted.terminal),
        }))
    }

    pub(crate) fn message(self) -> v1::Stdio {
        self.0
    }
}

fn random_u64() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    crate::entropy::fill(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Opens a connection that waits at a socket of the guest, however long, and is the next client's.
pub(crate) async fn wait_for_client(path: &Path, token: u64) -> Result<UnixStream, StreamError> {
    handshake(path, "socket", token).await.map(Stream::into_inner)
}

/// Takes over a connection to a port that the agent has made.
pub(crate) async fn claim(path: &Path, token: u64, deadline: Duration) -> Result<Stream, StreamError> {
    within(deadline, "connection", handshake(path, "connection", token)).await
}

/// Random and not zero.
pub(crate) fn random_token() -> std::io::Result<u64> {
    loop {
        let token = random_u64()?;
        if token != 0 {
            return Ok(token);
        }
    }
}

/// Connects every stream that the tokens name.
pub(crate) async fn attach(path: &Path, tokens: Tokens, deadline: Duration) -> Result<ProcessStreams, StreamError> {
    let Tokens(stdio) = tokens;
    let (stdin, stdout, stderr) = tokio::try_join!(
        attach_one(path, "stdin", stdio.stdin, deadline),
        attach_one(path, "stdout", stdio.stdout, deadline),
        attach_one(path, "stderr", stdio.stderr, deadline),
    )?;
    Ok(ProcessStreams { stdin, stdout, stderr })
}

async fn attach_one(
    path: &Path,
    name: &'static str,
    token: u64,
    deadline: Duration,
) -> Result<Option<Stream>, StreamError> {
    if token == 0 {
        return Ok(None);
    }
    within(deadline, name, handshake(path, name, token)).await.map(Some)
}

async fn within<T>(
    deadline: Duration,
    name: &'static str,
    work: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, StreamError> {
    let done = tokio::time::timeout(deadline, work).await;
    done.unwrap_or(Err(StreamError::Deadline { name, after: deadline }))
}

async fn handshake(path: &Path, name: &'static str, token: u64) -> Result<Stream, StreamError> {
    let mut stream = connect(path, STDIO_PORT).await.map_err(|source| StreamError::Connect { name, source })?;
    let io = |source| StreamError::Io { name, source };
    stream.write_all(&token.to_le_bytes()).await.map_err(io)?;
    match stream.read_u8().await.map_err(io)? {
        STDIO_ATTACHED => Ok(Stream(stream)),
        STDIO_UNKNOWN => Err(StreamError::Unknown { name }),
        answer => Err(StreamError::Answer { name, answer }),
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_for_wanted_streams_only_and_unequal() {
        let all = Tokens::random(StdioWanted { stdin: true, stdout: true, stderr: true, terminal: false }).unwrap();
        let stdio = all.message();
        assert!(stdio.stdin != 0 && stdio.stdout != 0 && stdio.stderr != 0);
        assert!(stdio.stdin != stdio.stdout && stdio.stdout != stdio.stderr && stdio.stdin != stdio.stderr);
        assert_eq!(Tokens::random(StdioWanted::default()).unwrap().message(), v1::Stdio::default());
    }

    #[test]
    fn a_terminal_has_no_stderr() {
        let wanted = StdioWanted { stdin: true, stdout: true, stderr: true, terminal: true };
        assert_eq!(Tokens::random(wanted).unwrap().message().stderr, 0);
    }
}
