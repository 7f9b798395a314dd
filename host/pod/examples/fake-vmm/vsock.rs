//! The hybrid vsock socket and what listens behind it.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use husk_agent_api::v1::agent_server::AgentServer;
use husk_agent_api::{RPC_PORT, STDIO_ATTACHED, STDIO_PORT, STDIO_UNKNOWN};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::agent::FakeAgent;
use crate::behaviour::Behaviour;

/// Serves in the background; `exit` ends the VM as the agent's exit port does.
pub(crate) fn serve(listener: UnixListener, behaviour: Behaviour, exit: impl Fn(u8) + Send + Sync + 'static) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let agent = Arc::new(FakeAgent::new(behaviour.clone(), Box::new(exit)));
    let (connections, incoming) = mpsc::channel::<std::io::Result<UnixStream>>(16);
    let service = tonic::transport::Server::builder().add_service(AgentServer::from_arc(Arc::clone(&agent)));
    tokio::spawn(service.serve_with_incoming(ReceiverStream::new(incoming)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (behaviour, agent, connections) = (behaviour.clone(), Arc::clone(&agent), connections.clone());
            tokio::spawn(async move { accept(stream, &behaviour, &agent, connections).await });
        }
    });
}

async fn accept(
    mut stream: UnixStream,
    behaviour: &Behaviour,
    agent: &FakeAgent,
    connections: mpsc::Sender<std::io::Result<UnixStream>>,
) -> Option<()> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await.ok()?);
    }
    let port: u32 = String::from_utf8(line).ok()?.strip_prefix("CONNECT ")?.trim().parse().ok()?;
    if behaviour.has("nobody-listens") {
        return None;
    }
    stream.write_all(b"OK 1073741824\n").await.ok()?;
    match port {
        RPC_PORT if behaviour.has("garbage-agent") => {
            let noise: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
            stream.write_all(&noise).await.ok()
        }
        RPC_PORT => connections.send(Ok(stream)).await.ok(),
        STDIO_PORT => standard_stream(stream, behaviour, agent).await,
        _ => None,
    }
}

/// Echoes: what comes in on stdin is what the process would print.
async fn standard_stream(mut stream: UnixStream, behaviour: &Behaviour, agent: &FakeAgent) -> Option<()> {
    let token = stream.read_u64_le().await.ok()?;
    if behaviour.has("silent-streams") {
        std::future::pending::<()>().await;
    }
    if behaviour.has("odd-streams") {
        return stream.write_all(&[77]).await.ok();
    }
    if behaviour.has("unknown-streams") || !agent.take_token(token) {
        return stream.write_all(&[STDIO_UNKNOWN]).await.ok();
    }
    stream.write_all(&[STDIO_ATTACHED]).await.ok()?;
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await.ok()?;
    writer.shutdown().await.ok()
}
