//! What the streaming server's clients get: the streams of execs, of containers, and connections to ports.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use husk_client::{FifoStreams, Fifos, Shim, Wanted};
use husk_streaming::{
    AttachRequest, DataStream, ExecRequest, ProcessStreams, Runtime, StreamError, TerminalSize, relay,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::{Engine, new_id};
use crate::error::Error;
use crate::state::Container;

/// The engine as the streaming server sees it.
#[derive(Debug)]
pub struct Streams(Weak<Engine>);

impl Streams {
    /// It does not keep the engine alive.
    #[must_use]
    pub fn new(engine: &Arc<Engine>) -> Self {
        Self(Arc::downgrade(engine))
    }

    fn engine(&self) -> Result<Arc<Engine>, StreamError> {
        self.0.upgrade().ok_or_else(|| StreamError::new("huskd is ending"))
    }
}

#[async_trait]
impl Runtime for Streams {
    async fn exec(&self, request: ExecRequest, streams: ProcessStreams) -> Result<u32, StreamError> {
        let engine = self.engine()?;
        let wanted =
            Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.tty };
        let (exec, ours) = async {
            let container = engine.container(&request.container)?;
            engine.exec(&container, &request.command, wanted).await
        }
        .await
        .map_err(refused)?;
        let mut resize = streams.resize;
        let gone = streams.gone;
        let copying = Copying::start(ours, streams.stdin, streams.stdout, streams.stderr);
        let ended = {
            let sizes = async {
                while let Some(TerminalSize { width, height }) = next(&mut resize).await {
                    exec.resize(height.into(), width.into()).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = exec.wait() => Some(ended),
                // Nobody is there for whom it could go on.
                () = gone.cancelled() => None,
                () = sizes => None,
            }
        };
        exec.end().await;
        copying.finish().await;
        match ended {
            Some(ended) => Ok(ended.map_err(refused)?.code),
            None => Err(StreamError::new("the client has left")),
        }
    }

    async fn attach(&self, request: AttachRequest, streams: ProcessStreams) -> Result<u32, StreamError> {
        let engine = self.engine()?;
        let container = engine.container(&request.container).map_err(refused)?;
        let wanted =
            Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.tty };
        let (shim, ours) = engine.join(&container, wanted).await.map_err(refused)?;
        let mut resize = streams.resize;
        let gone = streams.gone;
        let copying = Copying::start(ours, streams.stdin, streams.stdout, streams.stderr);
        {
            let sizes = async {
                while let Some(TerminalSize { width, height }) = next(&mut resize).await {
                    if let Err(error) = shim.resize(&container.id, None, height.into(), width.into()).await {
                        tracing::debug!(container = %container.id, "its terminal keeps its size: {error}");
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = container.exited() => {}
                () = gone.cancelled() => {}
                () = sizes => {}
            }
        }
        // Its output ends with the container; that of a client that has left is dropped.
        if gone.is_cancelled() {
            copying.abort();
        } else {
            copying.finish().await;
        }
        // How the container ended is its status's to tell, as with containerd: a client that saw its end saw all.
        Ok(0)
    }

    async fn port_forward(&self, sandbox: &str, port: u16, stream: DataStream) -> Result<(), StreamError> {
        let engine = self.engine()?;
        let (reader, writer) = engine.dial(sandbox, port).await.map_err(refused)?;
        relay(stream, DataStream::new(reader, writer)).await;
        Ok(())
    }
}

fn refused(error: Error) -> StreamError {
    StreamError::new(error.to_string())
}

/// The next size; `None` for ever when there is no terminal.
async fn next(resize: &mut Option<tokio::sync::mpsc::Receiver<TerminalSize>>) -> Option<TerminalSize> {
    resize.as_mut()?.recv().await
}

type Pipes = (tokio::net::unix::pipe::Receiver, tokio::net::unix::pipe::Sender);

impl Engine {
    /// Joins a running container's own streams.
    async fn join(&self, container: &Arc<Container>, wanted: Wanted) -> Result<(Shim, FifoStreams), Error> {
        if !container.phase().is_running() {
            return Err(Error::FailedPrecondition(format!("container {} is not running", container.id)));
        }
        let shim = self.shim(&container.sandbox)?;
        let fifos = Fifos::create(&self.streams(), &new_id()?, wanted)?;
        shim.attach(&container.id, &fifos.stdio(), container.config.stdin_once).await?;
        Ok((shim, fifos.into_streams()?))
    }

    /// A connection to a port inside the pod.
    async fn dial(&self, sandbox: &str, port: u16) -> Result<Pipes, Error> {
        let sandbox = self.sandbox(sandbox)?;
        let shim = self.shim(&sandbox)?;
        let fifos =
            Fifos::create(&self.streams(), &new_id()?, Wanted { stdin: true, stdout: true, ..Wanted::default() })?;
        shim.forward(port, &fifos.stdio()).await?;
        let streams = fifos.into_streams()?;
        let both = streams.stdout.zip(streams.stdin);
        both.ok_or_else(|| Error::Internal("a forwarded connection has no streams".into()))
    }
}

/// The copying between a client's streams and a process's.
#[derive(Debug)]
struct Copying {
    input: Option<JoinHandle<()>>,
    outputs: Vec<JoinHandle<()>>,
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

impl Copying {
    fn start(ours: FifoStreams, stdin: Option<Reader>, stdout: Option<Writer>, stderr: Option<Writer>) -> Self {
        let FifoStreams { stdin: to, stdout: out, stderr: err } = ours;
        let input = to.zip(stdin).map(|(to, from)| tokio::spawn(copy(from, to)));
        let outputs = [out.zip(stdout), err.zip(stderr)];
        let outputs = outputs.into_iter().flatten().map(|(from, to)| tokio::spawn(copy(from, to))).collect();
        Self { input, outputs }
    }

    /// Lets all output arrive.
    async fn finish(self) {
        if let Some(input) = self.input {
            input.abort();
        }
        for output in self.outputs {
            // A task that was cut off has nothing to tell.
            let _ = output.await;
        }
    }

    fn abort(self) {
        for task in self.input.into_iter().chain(self.outputs) {
            task.abort();
        }
    }
}

/// Everything, and its end.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    // Either side may leave at any time; the other one's end is then its end.
    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}
