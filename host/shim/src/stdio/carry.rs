//! One connection between a client's FIFOs and a stream, with an end of file for each direction.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::fifo::Outlet;
use super::pump::BUFFER;

/// Carries bytes until both directions have ended, or the client has left, that is, closed its output.
pub(crate) async fn carry<S: AsyncRead + AsyncWrite>(mut input: pipe::Receiver, output: Outlet, stream: S) {
    let (mut from, mut to) = tokio::io::split(stream);
    let up = async move {
        let mut buffer = vec![0; BUFFER];
        while let Ok(count @ 1..) = input.read(&mut buffer).await {
            if to.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
                return;
            }
        }
        // Who has closed already does not need to hear it.
        let _ = to.shutdown().await;
    };
    let down = async move {
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = tokio::select! {
                read = from.read(&mut buffer) => read.unwrap_or_default(),
                () = output.left() => return true,
            };
            if count == 0 {
                return false;
            }
            if output.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
                return true;
            }
        }
    };
    tokio::pin!(up, down);
    let left = tokio::select! {
        left = &mut down => left,
        () = &mut up => {
            down.await;
            return;
        }
    };
    if !left {
        up.await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tokio::io::duplex;

    use super::super::{Client, Request};
    use super::*;

    /// The client's ends of two fresh FIFOs, and the shim's.
    fn fifos(place: &Path) -> (pipe::Sender, pipe::Receiver, pipe::Receiver, Outlet) {
        let make = |name: &str| -> PathBuf {
            let path = place.join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            path
        };
        let (stdin, stdout) = (make("in"), make("out"));
        let reader = pipe::OpenOptions::new().open_receiver(&stdout).unwrap();
        let name = |path: &Path| path.to_str().unwrap().to_owned();
        let names = Request { stdin: name(&stdin), stdout: name(&stdout), ..Request::default() };
        let Client { stdin: ours, stdout: outlet, .. } = Client::open(&names).unwrap();
        let writer = pipe::OpenOptions::new().open_sender(&stdin).unwrap();
        (writer, reader, ours.unwrap(), outlet.unwrap())
    }

    #[tokio::test]
    async fn each_direction_ends_for_itself() {
        let place = tempfile::tempdir().unwrap();
        let (mut writer, mut reader, input, output) = fifos(place.path());
        let (ours, mut server) = duplex(1024);
        let carrying = tokio::spawn(carry(input, output, ours));
        writer.write_all(b"question").await.unwrap();
        drop(writer);
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        reader.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        carrying.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_ends_first_still_gets_the_rest() {
        let place = tempfile::tempdir().unwrap();
        let (mut writer, mut reader, input, output) = fifos(place.path());
        let (ours, mut server) = duplex(1024);
        let carrying = tokio::spawn(carry(input, output, ours));
        server.shutdown().await.unwrap();
        assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
        writer.write_all(b"more").await.unwrap();
        drop(writer);
        let mut got = String::new();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "more");
        carrying.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_leaves_takes_the_connection_along() {
        let place = tempfile::tempdir().unwrap();
        let (writer, reader, input, output) = fifos(place.path());
        let (ours, mut server) = duplex(1024);
        let carrying = tokio::spawn(carry(input, output, ours));
        // An idle server says nothing; the client's end alone must be noticed.
        drop((reader, writer));
        carrying.await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_client_that_leaves_a_server_which_does_not_read_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let (mut writer, reader, input, output) = fifos(place.path());
        let (ours, _server) = duplex(16);
        let carrying = tokio::spawn(carry(input, output, ours));
        writer.write_all(&[0; 1000]).await.unwrap();
        drop((reader, writer));
        carrying.await.unwrap();
    }
}
