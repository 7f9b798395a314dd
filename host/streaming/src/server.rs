//! The server: where it listens, which calls it expects.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http::{self, Expected};
use crate::remotecommand::Call;
use crate::runtime::{AttachRequest, ExecRequest, PortForwardRequest, Runtime};
use crate::token::{Exhausted, Tokens};

/// How many connections may be open that have shown no token yet. Any process of the host can open them.
const MAX_STRANGERS: usize = 256;
/// How long calls may go on when the server is told to stop.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long to wait after a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves calls that were asked for, each once, over HTTP on the loopback interface.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What connections need of the server.
pub(crate) struct Shared {
    pub(crate) tokens: Tokens<Expected>,
    pub(crate) runtime: Arc<dyn Runtime>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `address`, whose port may be 0 for any that is free. Within a tokio runtime with I/O and time.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the address is not of the loopback interface: tokens travel in the clear. Else the kernel's.
    pub async fn bind(address: SocketAddr, runtime: Arc<dyn Runtime>) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let text = format!("the streaming server listens on loopback addresses only, and {address} is none");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, shared: Arc::new(Shared { tokens: Tokens::new(), runtime }) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL at which the command can be run once, within a minute.
    ///
    /// # Errors
    ///
    /// [`Exhausted`].
    pub fn exec_url(&self, request: ExecRequest) -> Result<String, Exhausted> {
        self.url(http::EXEC, Expected::Process(Call::Exec(request)))
    }

    /// A URL at which the container can be attached to once, within a minute.
    ///
    /// # Errors
    ///
    /// [`Exhausted`].
    pub fn attach_url(&self, request: AttachRequest) -> Result<String, Exhausted> {
        self.url(http::ATTACH, Expected::Process(Call::Attach(request)))
    }

    /// A URL at which one client can forward connections to the sandbox, beginning within a minute.
    ///
    /// # Errors
    ///
    /// [`Exhausted`].
    pub fn port_forward_url(&self, request: PortForwardRequest) -> Result<String, Exhausted> {
        self.url(http::PORT_FORWARD, Expected::PortForward(request))
    }

    fn url(&self, kind: &str, call: Expected) -> Result<String, Exhausted> {
        let token = self.shared.tokens.insert(call)?;
        Ok(format!("http://{}/{kind}/{token}", self.address))
    }

    /// Serves until `shutdown` fires: then no connection is accepted any more, and calls that are still running after
    /// 10 s are broken off.
    pub async fn serve(&self, shutdown: CancellationToken) {
        let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    log(ended);
                    continue;
                }
                accepted = self.accept(&strangers) => accepted,
            };
            match accepted {
                Ok((stream, stranger)) => {
                    connections.spawn(http::serve(stream, Arc::clone(&self.shared), stranger));
                }
                Err(error) => {
                    tracing::warn!(%error, "the streaming server cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        let ended = async {
            while let Some(ended) = connections.join_next().await {
                log(ended);
            }
        };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            tracing::info!(calls = connections.len(), "streaming calls are broken off");
            connections.shutdown().await;
        }
    }

    async fn accept(&self, strangers: &Arc<Semaphore>) -> io::Result<(TcpStream, http::Stranger)> {
        let place = Arc::clone(strangers).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        // Keys and their echoes are single bytes.
        stream.set_nodelay(true)?;
        Ok((stream, http::Stranger::new(place)))
    }
}

fn log(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && !error.is_cancelled()
    {
        tracing::error!(%error, "a streaming call failed");
    }
}
