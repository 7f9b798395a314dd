//! Joining what runs already: a container's streams, and ports of the pod.

use super::engine::{Engine, Kind};
use super::error::Error;
use super::process::Phase;
use crate::stdio::{self, Client, OpenError};

impl Engine {
    /// Lets a client join the streams of a running container's first process.
    pub(super) fn attach(&self, id: &str, names: stdio::Request, close_stdin: bool) -> Result<(), Error> {
        let task = self.task(id)?;
        if task.kind == Kind::Sandbox {
            return Err(Error::Invalid(format!("{id} is the pod itself; attach to one of its containers")));
        }
        let Phase::Running { .. } = task.init.phase() else {
            return Err(task.init.wrong_phase("attached to").into());
        };
        // It has its streams since it was created, and for as long as it runs.
        let pumps = task.init.pumps().ok_or_else(|| task.init.wrong_phase("attached to"))?;
        let names = stdio::Request { terminal: task.init.streams.terminal, ..names };
        pumps
            .attach(&names, close_stdin)
            .map_err(|source| Error::Attach { container: id.to_owned(), source: Box::new(source) })
    }

    /// Connects two FIFOs of a client's to a port of the pod, and answers when the connection stands.
    pub(super) async fn forward(&self, port: u32, names: stdio::Request) -> Result<(), Error> {
        let number = u16::try_from(port).ok().filter(|port| *port != 0);
        let number = number.ok_or_else(|| Error::Invalid(format!("port {port}: not within 1 to 65535")))?;
        for (stream, name) in [("stdin", &names.stdin), ("stdout", &names.stdout)] {
            if name.is_empty() {
                return Err(OpenError::NotAFifo { stream, name: String::new() }.into());
            }
        }
        let client = Client::open(&names)?;
        let connected = self.running_pod()?.forward(number).await;
        let connection =
            connected.map_err(|source| Error::Forward { pod: self.settings.pod.clone(), source: Box::new(source) })?;
        if let (Some(stdin), Some(stdout)) = (client.stdin, client.stdout) {
            tokio::spawn(stdio::carry(stdin, stdout, connection));
        }
        Ok(())
    }
}
