//! What is the same for every request: it is logged by name, time and outcome, and ends when its client's patience does.
//!
//! Requests themselves are never logged: they carry credentials (`AuthConfig`) and the environment of containers.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

/// Lays [`Rpc`] around services.
#[derive(Debug, Clone, Copy, Default)]
pub struct RpcLayer;

/// A service whose requests are logged and end in time.
#[derive(Debug, Clone)]
pub struct Rpc<S> {
    inner: S,
}

impl<S> Layer<S> for RpcLayer {
    type Service = Rpc<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Rpc { inner }
    }
}

impl<S, B> Service<Request<B>> for Rpc<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let mut call =
            Call { method: path.rsplit('/').next().unwrap_or(path).to_owned(), since: Instant::now(), over: false };
        let patience = patience(request.headers());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = match patience {
                None => answer.await?,
                // tonic would say CANCELLED (it has the same clock, and starts it later); gRPC means DEADLINE_EXCEEDED.
                Some(patience) => match tokio::time::timeout(patience, answer).await {
                    Ok(response) => response?,
                    Err(_) => late(patience).into_http(),
                },
            };
            // An error stands in the head; a stream may yet fail, of which its own service tells.
            call.end(Status::from_header_map(response.headers()).as_ref());
            Ok(response)
        })
    }
}

fn late(patience: Duration) -> Status {
    Status::deadline_exceeded(format!("not done within the {patience:?} that the client gave"))
}

/// `grpc-timeout`: how long the client waits, if it says so (gRPC over HTTP2: at most 8 digits and a unit).
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// One request, from its first byte until it is over, which may be because the client has gone.
struct Call {
    method: String,
    since: Instant,
    over: bool,
}

impl Call {
    fn end(&mut self, error: Option<&Status>) {
        self.over = true;
        let (method, took) = (self.method.as_str(), self.since.elapsed());
        let Some(status) = error.filter(|status| status.code() != Code::Ok) else {
            tracing::debug!(method, ?took, code = "Ok", "answered");
            return;
        };
        let (code, error) = (status.code(), status.message());
        match code {
            // What clients ask that is not so, or not known here.
            Code::NotFound
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unimplemented => tracing::info!(method, ?took, ?code, error, "refused"),
            _ => tracing::warn!(method, ?took, ?code, error, "failed"),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            tracing::info!(method = self.method, took = ?self.since.elapsed(), "given up by the client");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_patience_is_read_as_grpc_writes_it() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("400m", Some(Duration::from_millis(400))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("", None),
            ("S", None),
            ("100000000S", None),
            ("5s", None),
            ("-5S", None),
            ("5é", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", tonic::codegen::http::HeaderValue::from_str(text).unwrap());
            assert_eq!(patience(&headers), expected, "{text}");
        }
        assert_eq!(patience(&HeaderMap::new()), None);
    }
}
