//! What stands behind the server: whoever runs the commands.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Does what clients ask for.
#[async_trait::async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Runs a command in a container and returns its exit code, 0 to 255, when it has ended and all that it wrote has
    /// been written to `streams`: what is written later is lost.
    ///
    /// # Errors
    ///
    /// The command could not be run. Its text is the client's.
    async fn exec(&self, request: ExecRequest, streams: ProcessStreams) -> Result<u32, StreamError>;

    /// Joins the client to the container's own process. Returns the process's exit code, 0 to 255, when it has ended
    /// and all that it wrote has been written to `streams`. When the client leaves, which must not disturb the process,
    /// it returns anything.
    ///
    /// # Errors
    ///
    /// The container could not be attached to. Its text is the client's.
    async fn attach(&self, request: AttachRequest, streams: ProcessStreams) -> Result<u32, StreamError>;

    /// Carries bytes between `stream` and a TCP port (1 to 65535) of the sandbox until either has closed;
    /// [`relay`](crate::relay) does that once there is a connection.
    ///
    /// # Errors
    ///
    /// There is no connection to the port. The text is the client's, and kubectl closes all its forwarded connections
    /// over it: the end of a connection that had been made is no error.
    async fn port_forward(&self, sandbox: &str, port: u16, stream: DataStream) -> Result<(), StreamError>;
}

/// What `kubectl exec` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container's id.
    pub container: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The process has a terminal. Then it has no stderr of its own, whatever `stderr` says.
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// What `kubectl attach` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// The container's id.
    pub container: String,
    /// The process has a terminal. Then it has no stderr of its own, whatever `stderr` says.
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// What `kubectl port-forward` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwardRequest {
    /// The sandbox's id.
    pub sandbox: String,
    /// Used when the client speaks WebSocket with channels, which has a pair of channels for each; at most 127. Over
    /// SPDY, tunnelled or not, the client names a port for each connection.
    pub ports: Vec<u16>,
}

/// The client's ends of a process's streams; those that it asked for.
pub struct ProcessStreams {
    /// Ends when the client has closed it or left. While the process does not read it, the client is not read either.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Waits for the client to read. Fails with `BrokenPipe` once the client has left. Shutting it down closes the
    /// client's; dropping it does not, until the call returns.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// As `stdout`.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// With a terminal: its sizes, the first of which usually comes at once.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
    /// Fires when the client has left. What becomes of the process is the runtime's decision.
    pub gone: CancellationToken,
}

impl fmt::Debug for ProcessStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessStreams")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .field("gone", &self.gone.is_cancelled())
            .finish()
    }
}

/// A terminal's size, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// The client's end of a forwarded connection. Shutting down the writer tells the client that no more comes.
pub struct DataStream {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl DataStream {
    /// A stream of two halves.
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self { reader: Box::new(reader), writer: Box::new(writer) }
    }

    /// Its two halves, to be used by two tasks.
    pub fn into_split(self) -> (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>) {
        (self.reader, self.writer)
    }
}

impl fmt::Debug for DataStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataStream").finish_non_exhaustive()
    }
}

impl AsyncRead for DataStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for DataStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

/// Why a call failed, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StreamError(String);

impl StreamError {
    /// An error of this text.
    pub fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }
}
