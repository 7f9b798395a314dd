//! Exec and attach over SPDY: the client opens a stream for each of the process's, and says which in a header.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Stream};
use super::frame::ResetStatus;
use crate::remotecommand::{Call, Open, Streams, Wants, run};
use crate::runtime::Runtime;
use crate::status::StatusFormat;

/// How many streams a client may have. It has five at most.
pub(crate) const MAX_STREAMS: usize = 100;
/// How long a client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);

/// Serves a call on a connection of its own.
pub(crate) async fn serve(mut connection: Connection, runtime: Arc<dyn Runtime>, call: Call, format: StatusFormat) {
    let opened = tokio::time::timeout(OPENING, open(&mut connection, call.wants())).await;
    connection.refuse();
    match opened {
        Ok(Some(streams)) => run(runtime, call, streams, format).await,
        Ok(None) => tracing::debug!("a client left before its streams were open"),
        Err(_) => tracing::debug!("a client did not open its streams within 30 s"),
    }
    connection.close().await;
}

/// Waits for all streams that the call needs; nothing when the client has left.
async fn open(connection: &mut Connection, wants: Wants) -> Option<Streams> {
    let [mut error, mut stdin, mut stdout, mut stderr, mut resize] = [const { None::<Stream> }; 5];
    loop {
        let opened = |stream: &Option<Stream>, wanted: bool| stream.is_some() || !wanted;
        if error.is_some()
            && opened(&stdin, wants.stdin)
            && opened(&stdout, wants.stdout)
            && opened(&stderr, wants.stderr)
            && opened(&resize, wants.resize)
        {
            break;
        }
        let stream = connection.accept().await?;
        let place = match stream.headers.get("streamtype") {
            Some("error") => &mut error,
            Some("stdin") => &mut stdin,
            Some("stdout") => &mut stdout,
            Some("stderr") => &mut stderr,
            Some("resize") => &mut resize,
            kind => {
                tracing::debug!(kind, "a client opened a stream of no known type");
                stream.handle.reset(ResetStatus::ProtocolError).await;
                continue;
            }
        };
        if place.is_some() {
            stream.handle.reset(ResetStatus::ProtocolError).await;
        } else {
            *place = Some(stream);
        }
    }
    // A stream that was opened without being part of the call has no bytes, and what comes on it is dropped.
    let both = |stream: Option<Stream>, wanted: bool| {
        stream.filter(|_| wanted).map(|Stream { incoming, handle, .. }| Open { incoming, handle })
    };
    let output = |stream: Option<Stream>, wanted: bool| stream.filter(|_| wanted).map(|stream| stream.handle);
    Some(Streams {
        stdin: both(stdin, wants.stdin),
        stdout: output(stdout, wants.stdout),
        stderr: output(stderr, wants.stderr),
        resize: both(resize, wants.resize),
        error: error?.handle,
        gone: connection.gone(),
    })
}
