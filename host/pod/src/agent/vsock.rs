//! Hybrid vsock: a connection into the guest through the VMM's unix socket.
//!
//! The caller writes `CONNECT <port>\n` and reads `OK <host port>\n`; then both directions are the guest's.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// "OK 4294967295\n".
const MAX_ANSWER: usize = 14;

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to guest port {port} through {}: {source}", path.display())]
    Io { port: u32, path: PathBuf, source: std::io::Error },
    #[error("nothing listens on guest port {port}")]
    Closed { port: u32 },
    #[error("the VMM's answer for guest port {port} is not that of the hybrid vsock protocol")]
    Answer { port: u32 },
}

/// Connects to a port of the guest. The caller bounds the time.
pub(super) async fn connect(path: &Path, port: u32) -> Result<UnixStream, ConnectError> {
    let io = |source| ConnectError::Io { port, path: path.to_owned(), source };
    let mut stream = UnixStream::connect(path).await.map_err(io)?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await.map_err(io)?;
    let mut answer = Vec::with_capacity(MAX_ANSWER);
    // Byte by byte: what follows the line belongs to the guest's side of the connection.
    while answer.last() != Some(&b'\n') {
        if answer.len() == MAX_ANSWER {
            return Err(ConnectError::Answer { port });
        }
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(error) if is_end(&error) => return Err(ConnectError::Closed { port }),
            Err(error) => return Err(io(error)),
        }
    }
    if is_ok(&answer) { Ok(stream) } else { Err(ConnectError::Answer { port }) }
}

fn is_end(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset)
}

fn is_ok(answer: &[u8]) -> bool {
    let number = answer.strip_prefix(b"OK ").and_then(|rest| rest.strip_suffix(b"\n"));
    number.and_then(|digits| std::str::from_utf8(digits).ok()).is_some_and(|digits| digits.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UnixListener;

    use super::*;

    async fn answered(answer: &'static [u8]) -> Result<UnixStream, ConnectError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        let listener = UnixListener::bind(&path).unwrap();
        let vmm = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut line = vec![0; "CONNECT 1024\n".len()];
            stream.read_exact(&mut line).await.unwrap();
            assert_eq!(line, b"CONNECT 1024\n");
            stream.write_all(answer).await.unwrap();
        });
        let result = tokio::time::timeout(Duration::from_secs(20), connect(&path, 1024)).await.unwrap();
        vmm.await.unwrap();
        result
    }

    #[tokio::test]
    async fn bytes_after_the_answer_are_the_guests() {
        let mut stream = answered(b"OK 1073741824\nhello").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn a_closed_connection_means_that_nobody_listens() {
        assert!(matches!(answered(b"").await, Err(ConnectError::Closed { port: 1024 })));
        assert!(matches!(answered(b"OK 12").await, Err(ConnectError::Closed { .. })));
    }

    #[tokio::test]
    async fn other_answers_are_refused_and_bounded() {
        for bad in [&b"NO 1\n"[..], b"OK\n", b"OK x\n", b"OK 99999999999\n", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", b"\n"] {
            assert!(matches!(answered(bad).await, Err(ConnectError::Answer { .. })), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_missing_socket_is_named() {
        let error = connect(Path::new("/nonexistent/vsock.sock"), 1024).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/vsock.sock"), "{error}");
    }
}
