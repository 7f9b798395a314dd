//! The HTTP side: from a request to the connection that it is upgraded to.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::negotiation::{self, Known, WebSocketPortForward, choose};
use crate::remotecommand::Call;
use crate::runtime::{PortForwardRequest, Runtime};
use crate::server::Shared;
use crate::spdy::{self, connection::Connection};
use crate::status::StatusFormat;
use crate::websocket::{self, Codec};

/// The first parts of URLs' paths.
pub(crate) const EXEC: &str = "exec";
pub(crate) const ATTACH: &str = "attach";
pub(crate) const PORT_FORWARD: &str = "portforward";

/// How long a client may take from connecting to the reply's end.
const REQUEST: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

const SPDY: &str = "SPDY/3.1";
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accept-stream-protocol-versions");

/// A call that a client asked for.
#[derive(Debug)]
pub(crate) enum Expected {
    Process(Call),
    PortForward(PortForwardRequest),
}

impl Expected {
    fn kind(&self) -> &'static str {
        match self {
            Self::Process(Call::Exec(_)) => EXEC,
            Self::Process(Call::Attach(_)) => ATTACH,
            Self::PortForward(_) => PORT_FORWARD,
        }
    }
}

/// A place among the connections that have shown no token.
#[derive(Debug)]
pub(crate) struct Stranger(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Stranger {
    pub(crate) fn new(place: OwnedSemaphorePermit) -> Self {
        Self(place)
    }
}

/// What a connection does once it is upgraded.
type Session = Pin<Box<dyn Future<Output = ()> + Send>>;
type Reply = Response<Full<Bytes>>;

/// Serves a connection: one request, and what it is upgraded to.
pub(crate) async fn serve(stream: TcpStream, shared: Arc<Shared>, stranger: Stranger) {
    let session: Arc<Mutex<Option<Session>>> = Arc::default();
    let service = service_fn(|mut request: Request<Incoming>| {
        let (reply, accepted) = match answer(&mut request, &shared) {
            Ok((reply, accepted)) => (reply, Some(accepted)),
            Err(refusal) => (*refusal, None),
        };
        *session.lock().unwrap_or_else(PoisonError::into_inner) = accepted;
        std::future::ready(Ok::<_, Infallible>(reply))
    });
    let served =
        http1::Builder::new().max_buf_size(MAX_HEAD).serve_connection(TokioIo::new(stream), service).with_upgrades();
    match tokio::time::timeout(REQUEST, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request to the streaming server failed"),
        Err(_) => tracing::debug!("a request to the streaming server took longer than 10 s"),
    }
    drop(stranger);
    let accepted = session.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(session) = accepted {
        session.await;
    }
}

/// Finds the call and the protocol. A token is spent whatever follows.
fn answer(request: &mut Request<Incoming>, shared: &Shared) -> Result<(Reply, Session), Box<Reply>> {
    if request.method() != Method::GET && request.method() != Method::POST {
        let mut reply = refuse(StatusCode::METHOD_NOT_ALLOWED, "GET and POST are the methods here");
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        return Err(reply);
    }
    let unknown = || refuse(StatusCode::NOT_FOUND, "there is no such call, or it has been made, or it has expired");
    let path = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
    let (kind, token) = path.ok_or_else(unknown)?;
    let call = shared.tokens.take(token).filter(|call| call.kind() == kind).ok_or_else(unknown)?;
    let runtime = Arc::clone(&shared.runtime);
    if !has_token(request.headers(), &CONNECTION, "upgrade") {
        return Err(refuse(StatusCode::BAD_REQUEST, "the request has no Connection: Upgrade"));
    }
    if has_token(request.headers(), &UPGRADE, SPDY) {
        spdy(request, call, runtime)
    } else if has_token(request.headers(), &UPGRADE, "websocket") {
        websocket(request, call, runtime)
    } else {
        Err(refuse(StatusCode::BAD_REQUEST, "the request has no Upgrade to SPDY/3.1 or websocket"))
    }
}

fn spdy(
    request: &mut Request<Incoming>,
    call: Expected,
    runtime: Arc<dyn Runtime>,
) -> Result<(Reply, Session), Box<Reply>> {
    let offered = items(request.headers(), &PROTOCOL_VERSION);
    let name;
    let start: Box<dyn FnOnce(TcpStream, Bytes) -> Session + Send> = match call {
        Expected::Process(call) => {
            let known = negotiation::SPDY_REMOTECOMMAND;
            let (chosen, format) =
                choose(&offered, known, StatusFormat::Text).ok_or_else(|| no_version(&offered, known))?;
            name = chosen;
            Box::new(move |stream, before| {
                Box::pin(async move {
                    let (read, write) = stream.into_split();
                    let connection = Connection::start(&before, read, write, spdy::remotecommand::MAX_STREAMS);
                    spdy::remotecommand::serve(connection, runtime, call, format).await;
                })
            })
        }
        Expected::PortForward(call) => {
            let known = negotiation::SPDY_PORT_FORWARD;
            let (chosen, ()) = choose(&offered, known, ()).ok_or_else(|| no_version(&offered, known))?;
            name = chosen;
            Box::new(move |stream, before| {
                Box::pin(async move {
                    let (read, write) = stream.into_split();
                    let connection = Connection::start(&before, read, write, spdy::port_forward::MAX_STREAMS);
                    spdy::port_forward::serve(connection, runtime, call.sandbox).await;
                })
            })
        }
    };
    let mut reply = switching(HeaderValue::from_static(SPDY));
    if let Some(name) = name {
        reply.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static(name));
    }
    Ok((reply, upgraded(hyper::upgrade::on(request), start)))
}

fn websocket(
    request: &mut Request<Incoming>,
    call: Expected,
    runtime: Arc<dyn Runtime>,
) -> Result<(Reply, Session), Box<Reply>> {
    let headers = request.headers();
    let version = headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| request.method() == Method::GET && version == Some(b"13"));
    let Some(key) = key else {
        return Err(refuse(StatusCode::BAD_REQUEST, "a WebSocket begins with a GET, version 13 and a key"));
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| refuse(StatusCode::BAD_REQUEST, "the WebSocket's key is not valid"))?;
    let offered = items(headers, &SEC_WEBSOCKET_PROTOCOL);
    let name;
    let start: Box<dyn FnOnce(TcpStream, Bytes) -> Session + Send> = match call {
        Expected::Process(call) => {
            let known = negotiation::WEBSOCKET_REMOTECOMMAND;
            let without = (Codec::Binary, StatusFormat::Text);
            let (chosen, spoken) = choose(&offered, known, without).ok_or_else(|| no_version(&offered, known))?;
            name = chosen;
            Box::new(move |stream, before| {
                Box::pin(async move {
                    let socket = websocket::accept(stream, before).await;
                    websocket::remotecommand::serve(socket, runtime, call, spoken).await;
                })
            })
        }
        Expected::PortForward(call) => {
            let known = negotiation::WEBSOCKET_PORT_FORWARD;
            let without = WebSocketPortForward::Channels(Codec::Binary);
            let (chosen, spoken) = choose(&offered, known, without).ok_or_else(|| no_version(&offered, known))?;
            let ports = call.ports.len();
            if spoken != WebSocketPortForward::Tunnel && !(1..=websocket::port_forward::MAX_PORTS).contains(&ports) {
                return Err(refuse(StatusCode::BAD_REQUEST, "over WebSocket's channels, 1 to 127 ports are forwarded"));
            }
            name = chosen;
            Box::new(move |stream, before| {
                Box::pin(async move {
                    let socket = websocket::accept(stream, before).await;
                    match spoken {
                        WebSocketPortForward::Tunnel => {
                            let (read, write) = websocket::tunnel::split(socket);
                            let connection = Connection::start(&[], read, write, spdy::port_forward::MAX_STREAMS);
                            spdy::port_forward::serve(connection, runtime, call.sandbox).await;
                        }
                        WebSocketPortForward::Channels(codec) => {
                            websocket::port_forward::serve(socket, runtime, call, codec).await;
                        }
                    }
                })
            })
        }
    };
    let mut reply = switching(HeaderValue::from_static("websocket"));
    reply.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(name) = name {
        reply.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok((reply, upgraded(hyper::upgrade::on(request), start)))
}

/// Waits for the upgrade, then starts the session with what the client sent behind its request.
fn upgraded(upgrade: OnUpgrade, start: Box<dyn FnOnce(TcpStream, Bytes) -> Session + Send>) -> Session {
    Box::pin(async move {
        let upgraded: Upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be upgraded");
                return;
            }
        };
        // `serve` has made every connection of this type.
        match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => start(parts.io.into_inner(), parts.read_buf).await,
            Err(_) => tracing::error!("a connection is not of TCP"),
        }
    })
}

/// Whether a header whose value is a list of tokens has this one, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    items(headers, name).iter().any(|item| item.eq_ignore_ascii_case(token))
}

/// The items of a header that may be repeated and may hold several, separated by commas.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty()).collect()
}

fn switching(to: HeaderValue) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    reply.headers_mut().insert(UPGRADE, to);
    reply
}

fn no_version<T>(offered: &[&str], known: &[Known<T>]) -> Box<Reply> {
    let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    let text = format!("none of the protocols {offered:?} is known here; these are: {names:?}");
    let mut reply = refuse(StatusCode::FORBIDDEN, text);
    for name in names {
        reply.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(name));
    }
    reply
}

fn refuse(status: StatusCode, why: impl Into<String>) -> Box<Reply> {
    let mut reply = Response::new(Full::from(why.into() + "\n"));
    *reply.status_mut() = status;
    // One request is all that a connection is for. hyper's own way to say it would overwrite the `Connection` of upgrades.
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Box::new(reply)
}
