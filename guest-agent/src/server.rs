//! Connections: gRPC on one listener, standard streams on another, from the host and nobody else.

use std::sync::Arc;
use std::time::Duration;

use husk_agent_api::v1::agent_server::AgentServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::agent::Agent;
use crate::error::{Context, Error, Result};
use crate::service::Service;
use crate::stdio::connection;

/// Connections that may wait to be taken up.
const BACKLOG: usize = 16;
/// Pause after a failed accept, so that a lasting cause does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepted connections.
pub type Incoming<C> = ReceiverStream<std::io::Result<C>>;

/// Listens on a vsock port. Peers other than the host (the guest's own processes, through a loopback) are closed.
pub fn listen(port: u32) -> Result<Incoming<VsockStream>> {
    let listener =
        VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port)).on("bind", format_args!("vsock port {port}"))?;
    let (to, incoming) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((connection, peer)) if peer.cid() == VMADDR_CID_HOST => {
                    if to.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                Ok((_, peer)) => crate::warning!("refused a connection from CID {} to port {port}", peer.cid()),
                Err(error) => {
                    crate::warning!("accept on vsock port {port}: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(ReceiverStream::new(incoming))
}

/// Serves both kinds of connection until a listener ends.
pub async fn serve<C>(agent: Arc<Agent>, rpc: Incoming<C>, stdio: Incoming<C>) -> Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
{
    let streams = Arc::clone(&agent.streams);
    let mut stdio = stdio.into_inner();
    tokio::spawn(async move {
        while let Some(accepted) = stdio.recv().await {
            if let Ok(connection) = accepted {
                tokio::spawn(connection::serve(Arc::clone(&streams), connection));
            }
        }
    });
    Server::builder()
        .add_service(AgentServer::new(Service(agent)))
        .serve_with_incoming(rpc)
        .await
        .map_err(|error| Error::Internal(format!("gRPC server: {error}")))
}
