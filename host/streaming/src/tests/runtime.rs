//! A runtime whose commands are a few lines each.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{AttachRequest, DataStream, ExecRequest, ProcessStreams, Runtime, StreamError, relay};

/// A port on which everything comes back.
pub(super) const ECHO: u16 = 7;
/// A port on which everything comes back when the client has sent its last.
pub(super) const ECHO_AT_END: u16 = 8;
/// A port that nobody listens on.
pub(super) const CLOSED: u16 = 1;

/// What the runtime has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Bytes that `flood` has written.
    pub(super) flooded: AtomicUsize,
    /// A client has left.
    pub(super) left: AtomicBool,
}

pub(super) struct TestRuntime {
    pub(super) seen: std::sync::Arc<Seen>,
}

#[async_trait::async_trait]
impl Runtime for TestRuntime {
    async fn exec(&self, request: ExecRequest, mut streams: ProcessStreams) -> Result<u32, StreamError> {
        assert_eq!(request.container, "c1");
        match request.command[0].as_str() {
            "cat" => {
                let (mut stdin, mut stdout) = (streams.stdin.unwrap(), streams.stdout.unwrap());
                tokio::io::copy(&mut stdin, &mut stdout).await.map_err(StreamError::new)?;
                Ok(0)
            }
            "seven" => {
                streams.stdout.unwrap().write_all(b"out").await.unwrap();
                streams.stderr.unwrap().write_all(b"err").await.unwrap();
                Ok(7)
            }
            "sizes" => {
                assert!(streams.stderr.is_none());
                let mut sizes = streams.resize.take().unwrap();
                let mut stdout = streams.stdout.unwrap();
                for _ in 0..2 {
                    let size = sizes.recv().await.unwrap();
                    stdout.write_all(format!("{}x{} ", size.width, size.height).as_bytes()).await.unwrap();
                }
                Ok(0)
            }
            "flood" => {
                let mut stdout = streams.stdout.unwrap();
                let bytes = vec![0; 64 * 1024];
                while let Ok(count) = stdout.write(&bytes).await {
                    self.seen.flooded.fetch_add(count, Ordering::SeqCst);
                }
                Ok(0)
            }
            "sleep" => {
                streams.gone.cancelled().await;
                self.seen.left.store(true, Ordering::SeqCst);
                Ok(0)
            }
            "close-stdout" => {
                streams.stdout.unwrap().shutdown().await.unwrap();
                streams.stderr.unwrap().write_all(b"err").await.unwrap();
                Ok(0)
            }
            command => Err(StreamError::new(format_args!("no {command} here"))),
        }
    }

    async fn attach(&self, _: AttachRequest, streams: ProcessStreams) -> Result<u32, StreamError> {
        let mut stdout = streams.stdout.unwrap();
        stdout.write_all(b"attached").await.unwrap();
        let mut text = String::new();
        streams.stdin.unwrap().read_to_string(&mut text).await.unwrap();
        if text == "exit" {
            return Ok(3);
        }
        streams.gone.cancelled().await;
        self.seen.left.store(true, Ordering::SeqCst);
        Ok(0)
    }

    async fn port_forward(&self, sandbox: &str, port: u16, stream: DataStream) -> Result<(), StreamError> {
        assert_eq!(sandbox, "s1");
        if port == CLOSED {
            return Err(StreamError::new("nobody listens"));
        }
        let (near, far) = tokio::io::duplex(4096);
        let (mut reader, mut writer) = tokio::io::split(far);
        let target = async move {
            if port == ECHO {
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            } else {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
                writer.write_all(&bytes).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        };
        tokio::join!(relay(stream, near), target);
        Ok(())
    }
}
