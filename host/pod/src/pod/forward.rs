//! Connections to ports of the pod.
//!
//! The agent connects to the port in the guest and hands the connection over as a stream, claimed by a token as standard
//! streams are: the guest itself still opens nothing towards the host.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use husk_agent_api::v1;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;

use super::Pod;
use crate::agent::{Agent, AgentError, Stream, claim, random_token};
use crate::error::ForwardError;

/// Most connections to ports of one pod at a time. Each takes descriptors of the shim, the VMM and the agent.
pub const FORWARDS_MAX: usize = 256;

/// How many more there may be.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(FORWARDS_MAX))
}

/// A connection to a port of the pod. Shutting it down for writing is the end of file of that direction only; dropping
/// it closes it in the guest, too.
#[derive(Debug)]
pub struct Forward {
    stream: Stream,
    /// Dropped after the stream.
    _end: End,
}

/// Tells the agent that nobody wants the connection any more: by a stream that the host has closed the guest cannot tell
/// whether the other direction is still read.
#[derive(Debug)]
struct End {
    agent: Agent,
    token: u64,
    /// Given back when the agent has let go.
    place: Option<OwnedSemaphorePermit>,
    wanted: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        // Without a runtime the shim itself is ending, and with it the VM.
        if let (true, Ok(runtime)) = (self.wanted, tokio::runtime::Handle::try_current()) {
            let (agent, token, place) = (self.agent.clone(), self.token, self.place.take());
            runtime.spawn(async move {
                match agent.end_forward(token).await {
                    Ok(()) | Err(AgentError::Ended(_)) => {}
                    Err(error) => tracing::warn!(%error, "a connection to a port of the pod may be left in the guest"),
                }
                drop(place);
            });
        }
    }
}

impl Pod {
    /// Connects to a TCP port, 1 to 65535, on the loopback addresses of the pod.
    pub async fn forward(&self, port: u16) -> Result<Forward, ForwardError> {
        if port == 0 {
            return Err(ForwardError::NoPort);
        }
        let place = Arc::clone(&self.forwards).try_acquire_owned();
        let place = place.map_err(|_| ForwardError::TooMany { port, most: FORWARDS_MAX })?;
        let token = random_token().map_err(ForwardError::Random)?;
        // From before it is asked for: this future may be dropped at any time.
        let mut end = End { agent: self.agent.clone(), token, place: Some(place), wanted: true };
        match self.agent.forward(v1::ForwardRequest { port: port.into(), token }).await {
            Ok(()) => {}
            Err(error) => {
                end.wanted = error.code().is_none();
                return Err(match error {
                    AgentError::Refused { code: Code::NotFound, .. } => ForwardError::NobodyListens { port },
                    source => ForwardError::Agent { port, source },
                });
            }
        }
        let stream = claim(self.agent.socket(), token, self.deadlines.stream).await;
        let stream = stream.map_err(|source| ForwardError::Stream { port, source })?;
        tracing::debug!(pod = self.name, port, "connected to a port of the pod");
        Ok(Forward { stream, _end: end })
    }
}

impl AsyncRead for Forward {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Forward {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
