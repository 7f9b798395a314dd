//! Requests that are answered with a URL, and the events.

use futures::{StreamExt as _, stream};
use husk_streaming as streaming;
use tokio::sync::broadcast::error::RecvError;

use super::{Messages, RuntimeServer};
use crate::api::{
    AttachRequest, AttachResponse, ContainerEventResponse, ExecRequest, ExecResponse, PortForwardRequest,
    PortForwardResponse,
};
use crate::error::Error;

impl RuntimeServer {
    pub(super) fn exec_url(&self, request: ExecRequest) -> Result<ExecResponse, Error> {
        let wanted = check(request.tty, request.stdin, request.stdout, request.stderr);
        wanted.map_err(|why| Error::InvalidArgument(format!("exec in {}: {why}", request.container_id)))?;
        if request.cmd.is_empty() {
            return Err(Error::InvalidArgument(format!("exec in {}: there is no command", request.container_id)));
        }
        let container = self.running(&request.container_id)?;
        let url = self.streaming.exec_url(streaming::ExecRequest {
            container,
            command: request.cmd,
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        });
        Ok(ExecResponse { url: url.map_err(exhausted)? })
    }

    pub(super) fn attach_url(&self, request: &AttachRequest) -> Result<AttachResponse, Error> {
        let wanted = check(request.tty, request.stdin, request.stdout, request.stderr);
        wanted.map_err(|why| Error::InvalidArgument(format!("attach to {}: {why}", request.container_id)))?;
        let container = self.running(&request.container_id)?;
        let url = self.streaming.attach_url(streaming::AttachRequest {
            container,
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        });
        Ok(AttachResponse { url: url.map_err(exhausted)? })
    }

    pub(super) fn port_forward_url(&self, request: &PortForwardRequest) -> Result<PortForwardResponse, Error> {
        let sandbox = self.engine.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Error::FailedPrecondition(format!("pod {} is not running", sandbox.id)));
        }
        let ports: Option<Vec<u16>> =
            request.port.iter().map(|port| u16::try_from(*port).ok().filter(|port| *port != 0)).collect();
        let ports = ports.ok_or_else(|| Error::InvalidArgument("ports are from 1 to 65535".into()))?;
        let url = self.streaming.port_forward_url(streaming::PortForwardRequest { sandbox: sandbox.id.clone(), ports });
        Ok(PortForwardResponse { url: url.map_err(exhausted)? })
    }

    /// The whole id of a container that runs.
    fn running(&self, id: &str) -> Result<String, Error> {
        let container = self.engine.container(id)?;
        if !container.phase().is_running() {
            return Err(Error::FailedPrecondition(format!("container {} is not running", container.id)));
        }
        Ok(container.id.clone())
    }

    /// Events from now on. Who is too slow misses some, which its next relist finds.
    pub(super) fn events(&self) -> Messages<ContainerEventResponse> {
        let listening = stream::unfold(self.engine.events.listen(), |mut events| async move {
            loop {
                match events.recv().await {
                    Ok(event) => return Some((Ok(event), events)),
                    Err(RecvError::Lagged(count)) => tracing::warn!(count, "a listener missed events"),
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        listening.boxed()
    }
}

/// CRI's rules for streams.
fn check(tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Result<(), &'static str> {
    if !stdin && !stdout && !stderr {
        return Err("one of stdin, stdout and stderr must be set");
    }
    if tty && stderr {
        return Err("tty and stderr cannot both be set: a terminal has one output");
    }
    Ok(())
}

fn exhausted(error: streaming::Exhausted) -> Error {
    Error::ResourceExhausted(error.to_string())
}
