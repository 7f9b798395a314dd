//! Unix sockets of the host that a pod's containers connect to.
//!
//! A socket's inode means nothing to another kernel, so the guest has a socket of its own, and the bytes are carried.
//! The guest opens no connections to the host: one of ours always waits there for the next client.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::agent::{Agent, StreamError, wait_for_client};
use crate::vmm::ended_now;

/// Most clients of one socket at a time; more wait.
const CLIENTS_MAX: usize = 256;
/// Before a connection to the guest that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Carries the bytes of one socket for as long as it lives.
#[derive(Debug)]
pub(crate) struct SocketProxy(JoinHandle<()>);

impl Drop for SocketProxy {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SocketProxy {
    /// `socket` is an `O_PATH` descriptor of the host's socket; `token` is what the guest knows its own by.
    pub(crate) fn start(agent: &Agent, token: u64, socket: OwnedFd) -> Self {
        let (guest, mut ended) = (agent.socket().to_owned(), agent.ended());
        Self(tokio::spawn(async move {
            tokio::select! {
                () = serve(&guest, token, Arc::new(socket)) => {}
                _ = ended_now(&mut ended) => {}
            }
        }))
    }
}

async fn serve(guest: &Path, token: u64, socket: Arc<OwnedFd>) {
    let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut carriers = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&clients).acquire_owned().await else { return };
        while carriers.try_join_next().is_some() {}
        match wait_for_client(guest, token).await {
            Ok(client) => {
                let socket = Arc::clone(&socket);
                carriers.spawn(async move {
                    carry(client, &socket).await;
                    drop(place);
                });
            }
            // The one before it may not have been let go of yet; or the guest has no such socket any more.
            Err(error @ (StreamError::Unknown { .. } | StreamError::Connect { .. } | StreamError::Io { .. })) => {
                tracing::debug!(%error, "no connection waits at a socket of the guest");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(%error, "a socket of the host is not served any more");
                return;
            }
        }
    }
}

/// A client whose server does not answer is hung up on.
async fn carry(mut client: UnixStream, socket: &OwnedFd) {
    // The magic link leads to the very socket that was shared, whatever its name leads to by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}", socket.as_raw_fd()));
    match UnixStream::connect(&path).await {
        Ok(mut server) => {
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        Err(error) => tracing::debug!(%error, "nobody listens on a socket of the host"),
    }
}
