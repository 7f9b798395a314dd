//! One exec: registered with the shim, started, waited for, forgotten.

use std::sync::Arc;

use husk_client::{Exit, FifoStreams, Fifos, Shim, Wanted, still_there};
use husk_spec::signals;
use oci_spec::runtime::{Process, Spec};

use super::super::{Engine, new_id};
use crate::error::Error;
use crate::spec;
use crate::state::Container;

/// A further process of a container that has been started. Call [`Exec::end`], or its shim remembers it for ever.
#[derive(Debug)]
pub(in crate::runtime) struct Exec {
    shim: Shim,
    container: String,
    id: String,
}

impl Engine {
    /// Starts a command in a running container; answers it with the callers' ends of its streams.
    pub(in crate::runtime) async fn exec(
        &self,
        container: &Arc<Container>,
        command: &[String],
        wanted: Wanted,
    ) -> Result<(Exec, FifoStreams), Error> {
        if command.is_empty() {
            return Err(Error::InvalidArgument("there is no command to execute".into()));
        }
        if !container.phase().is_running() {
            return Err(Error::FailedPrecondition(format!("container {} is not running", container.id)));
        }
        let shim = self.shim(&container.sandbox)?;
        let process = spec::exec_process(&self.first_process(&container.id)?, command, wanted.terminal);
        let id = new_id()?;
        let fifos = Fifos::create(&self.streams(), &id, wanted)?;
        shim.exec(&container.id, &id, &process, fifos.stdio()).await?;
        let exec = Exec { shim, container: container.id.clone(), id };
        if let Err(error) = exec.shim.start_exec(&exec.container, &exec.id).await {
            exec.forget().await;
            return Err(Error::from(error).context(format!("container {}", exec.container)));
        }
        match fifos.into_streams() {
            Ok(streams) => Ok((exec, streams)),
            Err(error) => {
                exec.end().await;
                Err(error.into())
            }
        }
    }

    /// What a container's bundle says of its first process.
    fn first_process(&self, id: &str) -> Result<Process, Error> {
        let path = self.bundle(id).join("config.json");
        let text = std::fs::read(&path).map_err(|error| Error::Internal(format!("{}: {error}", path.display())))?;
        let spec: Spec = serde_json::from_slice(&text)?;
        let absent = || Error::Internal(format!("{}: it has no process", path.display()));
        spec.process().clone().ok_or_else(absent)
    }
}

impl Exec {
    /// Waits for the process's end.
    pub(in crate::runtime) async fn wait(&self) -> Result<Exit, Error> {
        Ok(self.shim.wait(&self.container, Some(&self.id)).await?)
    }

    pub(in crate::runtime) async fn resize(&self, rows: u32, columns: u32) {
        if let Err(error) = self.shim.resize(&self.container, Some(&self.id), rows, columns).await {
            tracing::debug!(container = %self.container, "its terminal keeps its size: {error}");
        }
    }

    /// Ends the process if it runs, and forgets it: its streams end.
    pub(in crate::runtime) async fn end(&self) {
        match still_there(self.shim.kill(&self.container, Some(&self.id), signals::KILL, false).await) {
            Ok(true) => {
                let _ = self.wait().await;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(container = %self.container, exec = %self.id, "{error}"),
        }
        self.forget().await;
    }

    async fn forget(&self) {
        if let Err(error) = self.shim.delete(&self.container, Some(&self.id)).await {
            tracing::debug!(container = %self.container, exec = %self.id, "{error}");
        }
    }
}
