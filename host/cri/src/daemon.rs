//! The daemon as a whole: what it opens, what it serves, and how it ends.
//!
//! It may be killed at any moment: pods live on in their own processes, and the next huskd takes them up again.

mod rpc;
mod socket;

use std::fs::File;
use std::future::Future;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use husk_image::{Store, StoreError};
use husk_streaming::Server as StreamingServer;
use thiserror::Error;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::config::Config;
use crate::notify;
use crate::runtime::{Engine, RuntimeServer, Streams};
use socket::Socket;

pub use rpc::{Rpc, RpcLayer};

/// Largest message of CRI, either way: kubelet's own bound.
pub const MAX_MESSAGE: usize = 16 << 20;

/// How long requests that are under way may take when the daemon is to end.
const GRACE: Duration = Duration::from_secs(10);

/// How often it is seen whether removed images are still in use.
const SWEEP: Duration = Duration::from_secs(30);

/// huskd cannot start, or go on.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// A directory of its own.
    #[error("directory {} cannot be made: {cause}; see `root` and `run` in the configuration", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Another one has the same directory.
    #[error("another huskd ({holder}) works in {}: stop that one, or give this one another `run`", run.display())]
    Running {
        /// The directory.
        run: PathBuf,
        /// `process N`
        holder: String,
    },
    /// The lock that keeps others away.
    #[error("{} cannot be locked: {cause}; see that the directory is writable", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The socket.
    #[error("cannot listen on {}: {cause}; see `socket` in the configuration", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// What is remembered of pods.
    #[error("the records of pods cannot be used: {0}; see `root` and `run` in the configuration")]
    Records(#[source] io::Error),
    /// The server of streams.
    #[error("cannot listen for exec, attach and port-forward on the loopback interface: {0}")]
    Streaming(#[source] io::Error),
    /// The images.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The connections.
    #[error("CRI is not served any more: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// A daemon that has everything it needs. Clients that connect wait until it serves.
#[derive(Debug)]
pub struct Daemon {
    config: Config,
    store: Store,
    socket: Socket,
    /// Locked as long as the daemon lives.
    lock: File,
}

impl Daemon {
    /// Makes directories, keeps other huskds away, opens the store and listens.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub fn open(config: Config) -> Result<Self, DaemonError> {
        let socket_dir = config.socket.parent().unwrap_or(Path::new("/"));
        for path in [&config.root, &config.run, socket_dir] {
            let failed = |cause| DaemonError::Directory { path: path.to_owned(), cause };
            std::fs::create_dir_all(path).map_err(failed)?;
        }
        let lock = lock(&config.run)?;
        let store = Store::open(config.images())?;
        let socket = Socket::listen(&config.socket)
            .map_err(|cause| DaemonError::Socket { path: config.socket.clone(), cause })?;
        Ok(Self { config, store, socket, lock })
    }

    /// Serves until `stop` is done. Requests under way then have [`GRACE`] to end; pods live on.
    ///
    /// # Errors
    /// When connections cannot be taken.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
        let Self { config, store, socket, lock } = self;
        let path = config.socket.clone();
        let (listener, name) = socket.into_parts();
        let listener = tokio::net::UnixListener::from_std(listener)
            .map_err(|cause| DaemonError::Socket { path: path.clone(), cause })?;

        let (end, mut ended) = watch::channel(false);
        let graceful = async move {
            // An error means that `end` has gone, and so has all else.
            let _ = ended.wait_for(|ended| *ended).await;
        };
        let (engine, streaming) = Self::engine(&config, &store).await?;
        let streams_end = CancellationToken::new();
        let streams = tokio::spawn({
            let (streaming, end) = (Arc::clone(&streaming), streams_end.clone());
            async move { streaming.serve(end).await }
        });
        // Every service of the daemon is added here.
        let router = Server::builder()
            .layer(RpcLayer)
            .add_service(RuntimeServer::service(engine, streaming))
            .add_service(crate::images::service(store.clone(), &config));
        let mut serving =
            std::pin::pin!(router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), graceful));

        let chores = tokio::spawn(chores(store));
        notify::notify(notify::READY);
        tracing::info!(socket = %path.display(), root = %config.root.display(), "serving");
        let served = tokio::select! {
            served = &mut serving => served,
            () = stop => {
                notify::notify(notify::STOPPING);
                tracing::info!("ending");
                // New clients shall find nobody rather than wait.
                drop(name);
                let _ = end.send(true);
                tokio::time::timeout(GRACE, &mut serving).await.unwrap_or_else(|_| {
                    tracing::warn!(grace = ?GRACE, "requests are broken off");
                    Ok(())
                })
            }
        };
        chores.abort();
        streams_end.cancel();
        // Its clients see the end; one that was cut off has nothing to tell.
        let _ = tokio::time::timeout(GRACE, streams).await;
        // Not before nothing is done any more.
        drop(lock);
        Ok(served?)
    }
}

impl Daemon {
    /// What serves pods, once it knows those that there are: kubelet must never see a list without them.
    async fn engine(config: &Config, store: &Store) -> Result<(Arc<Engine>, Arc<StreamingServer>), DaemonError> {
        let engine = Engine::open(config.clone(), store.clone()).map_err(DaemonError::Records)?;
        engine.recover().await.map_err(DaemonError::Records)?;
        let streams = Arc::new(Streams::new(&engine));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let streaming = StreamingServer::bind(address, streams).await.map_err(DaemonError::Streaming)?;
        Ok((engine, Arc::new(streaming)))
    }
}

/// Keeps every other huskd out of `run`; the lock ends with the process, however that ends.
fn lock(run: &Path) -> Result<File, DaemonError> {
    let path = run.join("huskd.lock");
    let failed = |cause| DaemonError::Lock { path: path.clone(), cause };
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // It may just be writing its number.
            let _ = file.read_to_string(&mut holder);
            return Err(DaemonError::Running { run: run.to_owned(), holder: format!("process {}", holder.trim()) });
        }
        Err(std::fs::TryLockError::Error(cause)) => return Err(failed(cause)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// What is done beside requests.
async fn chores(store: Store) {
    tokio::join!(watchdog(), sweep(store));
}

/// Says that the daemon lives, as often as systemd wants to hear it.
async fn watchdog() {
    let Some(interval) = notify::watchdog_interval() else { return };
    let mut interval = tokio::time::interval(interval);
    loop {
        interval.tick().await;
        notify::notify(notify::WATCHDOG);
    }
}

/// Removed images go when the last pod that runs from them has ended, of which nobody tells the store.
async fn sweep(store: Store) {
    let mut interval = tokio::time::interval(SWEEP);
    loop {
        interval.tick().await;
        let store = store.clone();
        match tokio::task::spawn_blocking(move || store.sweep()).await {
            Ok(Ok(gone)) => {
                gone.iter().for_each(|id| tracing::info!(%id, "a removed image is not used any more: deleted"))
            }
            Ok(Err(error)) => tracing::warn!(%error, "removed images stay"),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
