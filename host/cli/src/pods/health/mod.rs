//! Hooks and probes as they are done: a command in the container, or a request to the pod's address from the host, as
//! kubelet does it. When they are done, and what follows from it, is the supervisor's business (`tally` counts for it).

mod exec;
mod grpc;
mod http;
mod tally;

use std::net::IpAddr;
use std::time::Duration;

use husk_client::{Shim, TaskError};
use thiserror::Error;
use tokio::time::timeout;

use super::directory::{DirectoryError, PodDir};
use super::plan::Action;
use super::record::{ContainerRecord, PodRecord};

pub(crate) use tally::{Tally, Verdict};

/// Why an action failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the command ended with exit code {0}")]
    ExitCode(u32),
    #[error("the command cannot be run: {0}")]
    Command(String),
    #[error("GET {url} was answered {status}")]
    Http { url: String, status: u16 },
    #[error("GET {url}: {cause}")]
    HttpRequest { url: String, cause: String },
    #[error("no connection to {address}: {cause}")]
    Connection { address: String, cause: String },
    #[error("health service \"{service}\" at {address} {cause}")]
    Grpc { address: String, service: String, cause: String },
    #[error("the pod has no address")]
    NoAddress,
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// The container that something is done to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) shim: Shim,
    pub(crate) dir: PodDir,
    pub(crate) ip: Option<IpAddr>,
}

impl Target {
    pub(crate) fn of(shim: &Shim, dir: &PodDir, pod: &PodRecord) -> Self {
        Self { shim: shim.clone(), dir: dir.clone(), ip: pod.ips.first().copied() }
    }

    /// Does it, within `limit`.
    pub(crate) async fn act(
        &self,
        container: &ContainerRecord,
        action: &Action,
        limit: Duration,
    ) -> Result<(), Failure> {
        match action {
            // It has to be ended when it takes too long.
            Action::Exec { command } => exec::run(self, container, command, limit).await,
            other => timeout(limit, self.ask(other)).await.unwrap_or(Err(Failure::Timeout(limit))),
        }
    }

    async fn ask(&self, action: &Action) -> Result<(), Failure> {
        match action {
            Action::Http(get) => http::get(&self.host(get.host.as_deref())?, get).await,
            Action::Tcp { host, port } => {
                let host = self.host(host.as_deref())?;
                let connected = tokio::net::TcpStream::connect((host.as_str(), *port)).await;
                let address = address(&host, *port);
                connected.map(drop).map_err(|cause| Failure::Connection { address, cause: cause.to_string() })
            }
            Action::Grpc { port, service } => grpc::check(&address(&self.host(None)?, *port), service).await,
            Action::Sleep { seconds } => {
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                Ok(())
            }
            Action::Exec { .. } => Ok(()),
        }
    }

    fn host(&self, named: Option<&str>) -> Result<String, Failure> {
        match (named, self.ip) {
            (Some(host), _) => Ok(host.to_owned()),
            (None, Some(ip)) => Ok(ip.to_string()),
            (None, None) => Err(Failure::NoAddress),
        }
    }
}

/// `10.0.0.1:80`, `[::1]:80`.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
