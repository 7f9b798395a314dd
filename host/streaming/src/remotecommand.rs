//! Exec and attach: Kubernetes' remotecommand protocol, as far as it is the same over SPDY and WebSocket.
//!
//! A process has up to three streams, one more for its terminal's size and one on which its end is told. The client
//! reads stdout and stderr to their ends, then the error stream.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::runtime::{AttachRequest, ExecRequest, ProcessStreams, Runtime, TerminalSize};
use crate::status::StatusFormat;
use crate::stream::{Handle, Incoming};

/// The longest text of a terminal size; what clients send has 30 bytes.
const MAX_SIZE_TEXT: usize = 1024;
/// How many terminal sizes wait for the runtime.
const SIZES: usize = 8;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Exec(ExecRequest),
    Attach(AttachRequest),
}

impl Call {
    /// The streams that the call has beside the error stream.
    pub(crate) fn wants(&self) -> Wants {
        let (tty, stdin, stdout, stderr) = match self {
            Self::Exec(call) => (call.tty, call.stdin, call.stdout, call.stderr),
            Self::Attach(call) => (call.tty, call.stdin, call.stdout, call.stderr),
        };
        // A terminal is one device: what a process writes to either stream comes out of it.
        Wants { stdin, stdout, stderr: stderr && !tty, resize: tty }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wants {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) resize: bool,
}

/// A stream that is open.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) incoming: Incoming,
    pub(crate) handle: Handle,
}

/// The streams of a call, all of which are open.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<Open>,
    pub(crate) stdout: Option<Handle>,
    pub(crate) stderr: Option<Handle>,
    pub(crate) resize: Option<Open>,
    pub(crate) error: Handle,
    pub(crate) gone: CancellationToken,
}

/// Has the runtime do the call, then ends its streams and tells how it ended.
pub(crate) async fn run(runtime: Arc<dyn Runtime>, call: Call, streams: Streams, format: StatusFormat) {
    let (sizes, resize) = mpsc::channel(SIZES);
    let (size_reader, has_terminal, mut handles) = match streams.resize {
        Some(open) => (Some(open.incoming), true, vec![open.handle]),
        None => (None, false, Vec::new()),
    };
    let stdin = streams.stdin.map(|open| {
        handles.push(open.handle);
        Box::new(open.incoming) as Box<dyn AsyncRead + Send + Unpin>
    });
    let mut output = |handle: Option<Handle>| {
        handle.map(|handle| {
            let outgoing = handle.outgoing();
            handles.push(handle);
            Box::new(outgoing) as Box<dyn AsyncWrite + Send + Unpin>
        })
    };
    let (stdout, stderr) = (output(streams.stdout), output(streams.stderr));
    let streams_of_process =
        ProcessStreams { stdin, stdout, stderr, resize: has_terminal.then_some(resize), gone: streams.gone };
    let process = async {
        match call {
            Call::Exec(request) => runtime.exec(request, streams_of_process).await,
            Call::Attach(request) => runtime.attach(request, streams_of_process).await,
        }
    };
    let resizing = async {
        if let Some(reader) = size_reader {
            pass_sizes(reader, sizes).await;
        } else {
            drop(sizes);
        }
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = process => outcome,
        never = resizing => never,
    };
    for handle in handles {
        handle.finish().await;
    }
    for piece in format.message(&outcome).chunks(crate::spdy::frame::MAX_DATA) {
        streams.error.send(Bytes::copy_from_slice(piece)).await;
    }
    streams.error.finish().await;
}

/// A size as clients write it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Passes terminal sizes on, a stream of JSON values with anything or nothing between them. What is no size ends it:
/// where the next value begins is not known then.
async fn pass_sizes(mut reader: Incoming, sizes: mpsc::Sender<TerminalSize>) {
    let mut text = Vec::new();
    let mut buffer = [0; 256];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        text.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let mut values = serde_json::Deserializer::from_slice(&text).into_iter::<Size>();
        let broken = loop {
            match values.next() {
                Some(Ok(Size { width, height })) => {
                    // A runtime that wants no sizes has dropped the receiver. They are read all the same, so that
                    // they do not use up the connection's budget.
                    let _ = sizes.send(TerminalSize { width, height }).await;
                }
                Some(Err(error)) if error.is_eof() => break false,
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        let read = values.byte_offset();
        text.drain(..read.min(text.len()));
        if broken || text.len() > MAX_SIZE_TEXT {
            tracing::debug!("a client sent what is no terminal size");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Budget, inbox};

    #[tokio::test]
    async fn sizes_come_in_any_pieces() {
        let (budget, (inbox, incoming)) = (Budget::new(), inbox());
        let (sender, mut sizes) = mpsc::channel(SIZES);
        for piece in
            [r#"{"Width":8"#, r#"0,"Height":24}{"Width":81,"#, "\"Height\":25}\n{\"Width\"", r#":1,"Height":2}"#]
        {
            budget.deliver(Bytes::from_static(piece.as_bytes()), &inbox).await;
        }
        budget.deliver(Bytes::from_static(b"nonsense"), &inbox).await;
        pass_sizes(incoming, sender).await;
        let mut got = Vec::new();
        while let Some(TerminalSize { width, height }) = sizes.recv().await {
            got.push((width, height));
        }
        assert_eq!(got, [(80, 24), (81, 25), (1, 2)]);
    }
}
