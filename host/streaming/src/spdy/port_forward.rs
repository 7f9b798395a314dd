//! Port-forward over SPDY: for each connection the client opens two streams, one for the bytes and one for errors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::{Connection, Stream};
use super::frame::ResetStatus;
use crate::runtime::{DataStream, Runtime};

/// The protocol's name, in upgrades.
pub(crate) const PROTOCOL: &str = "portforward.k8s.io";
/// How many streams a client may have: of 500 forwarded connections.
pub(crate) const MAX_STREAMS: usize = 1000;
/// How long a stream waits for the other one of its pair.
const PAIRING: Duration = Duration::from_secs(30);
/// How long connections may go on to deliver what the client sent before it left.
const DELIVERY: Duration = Duration::from_secs(60);
/// The longest `requestid`. kubectl counts.
const MAX_REQUEST_ID: usize = 64;

/// Serves all connections that a client forwards to a sandbox.
pub(crate) async fn serve(mut connection: Connection, runtime: Arc<dyn Runtime>, sandbox: String) {
    let sandbox: Arc<str> = sandbox.into();
    let mut waiting = HashMap::new();
    let mut forwarding = JoinSet::new();
    loop {
        let next_expiry = waiting.values().map(|half: &Half| half.since + PAIRING).min();
        tokio::select! {
            stream = connection.accept() => match stream {
                Some(stream) => {
                    if let Some(pair) = pair(stream, &mut waiting).await {
                        forwarding.spawn(forward(pair, Arc::clone(&runtime), Arc::clone(&sandbox)));
                    }
                }
                None => break,
            },
            Some(_) = forwarding.join_next() => {}
            () = sleep_until(next_expiry) => expire(&mut waiting).await,
        }
    }
    let delivered = async { while forwarding.join_next().await.is_some() {} };
    if tokio::time::timeout(DELIVERY, delivered).await.is_err() {
        tracing::debug!("forwarded connections outlived their client by a minute");
    }
    connection.close().await;
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Error,
    Data,
}

/// A stream that waits for the other one of its pair.
struct Half {
    kind: Kind,
    port: u16,
    stream: Stream,
    since: Instant,
}

struct Pair {
    port: u16,
    data: Stream,
    error: Stream,
}

/// Finds the other stream of a pair, or has the stream wait for it.
async fn pair(stream: Stream, waiting: &mut HashMap<String, Half>) -> Option<Pair> {
    let Some((kind, port, request)) = read_headers(&stream) else {
        tracing::debug!(id = stream.id, "a client opened a stream without a valid type, port and request");
        stream.handle.reset(ResetStatus::ProtocolError).await;
        return None;
    };
    let Some(other) = waiting.remove(&request) else {
        waiting.insert(request, Half { kind, port, stream, since: Instant::now() });
        return None;
    };
    if other.kind == kind || other.port != port {
        stream.handle.reset(ResetStatus::ProtocolError).await;
        waiting.insert(request, other);
        return None;
    }
    let (data, error) = if kind == Kind::Data { (stream, other.stream) } else { (other.stream, stream) };
    Some(Pair { port, data, error })
}

fn read_headers(stream: &Stream) -> Option<(Kind, u16, String)> {
    let kind = match stream.headers.get("streamtype")? {
        "error" => Kind::Error,
        "data" => Kind::Data,
        _ => return None,
    };
    let port = stream.headers.get("port")?.parse().ok().filter(|port| *port != 0)?;
    let request = match stream.headers.get("requestid") {
        Some(request) if request.len() > MAX_REQUEST_ID => return None,
        Some(request) => request.to_owned(),
        // Clients older than the header open the stream for errors first and the one for data directly behind it.
        None if kind == Kind::Error => stream.id.to_string(),
        None => stream.id.checked_sub(2)?.to_string(),
    };
    Some((kind, port, request))
}

async fn expire(waiting: &mut HashMap<String, Half>) {
    let expired = waiting.extract_if(|_, half| half.since.elapsed() >= PAIRING);
    for (request, half) in expired.collect::<Vec<_>>() {
        tracing::debug!(request, port = half.port, "a client opened half of a pair of streams");
        half.stream.handle.reset(ResetStatus::Cancel).await;
    }
}

async fn forward(pair: Pair, runtime: Arc<dyn Runtime>, sandbox: Arc<str>) {
    let Pair { port, data, error } = pair;
    let stream = DataStream::new(data.incoming, data.handle.outgoing());
    let result = runtime.port_forward(&sandbox, port, stream).await;
    if let Err(failure) = result {
        let text = format!("error forwarding port {port} to pod {sandbox}: {failure}");
        let _ = error.handle.outgoing().write_all(text.as_bytes()).await;
    }
    data.handle.finish().await;
    error.handle.finish().await;
    // The client may have no more to say on either: then this sends nothing.
    data.handle.reset(ResetStatus::Cancel).await;
    error.handle.reset(ResetStatus::Cancel).await;
}
