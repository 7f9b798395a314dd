//! RuntimeService: pods and their containers, from RunPodSandbox to RemovePodSandbox.
//!
//! [`Engine`] holds what every request needs. Each operation is a file below `sandbox` or `container`, a function that
//! reads as a recipe; `service` only translates between CRI's messages and these. An operation that changes something
//! runs in a task of its own, so that a client that goes away does not leave it half done.

mod container;
mod events;
mod exec;
mod network;
mod recover;
mod sandbox;
mod service;
mod status;
mod streams;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use husk_client::{Dirs, ShimLauncher};
use husk_image::Store;

use crate::config::{Config, Handler};
use crate::error::Error;
use crate::state::{Container, Disk, Names, Sandbox, Table};
use crate::stats::Interest;
use events::Events;

pub use service::RuntimeServer;
pub use streams::Streams;

/// The shims' namespace: ids of huskd's pods do not collide with those of others.
const NAMESPACE: &str = "huskd";

/// What every request needs.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) images: Store,
    pub(crate) sandboxes: Table<Sandbox>,
    pub(crate) containers: Table<Container>,
    sandbox_disk: Disk,
    container_disk: Disk,
    sandbox_names: Names,
    container_names: Names,
    pub(crate) events: Events,
    /// Whether anybody wants to know what pods take.
    pub(crate) interest: Interest,
    dirs: Dirs,
}

impl Engine {
    /// An engine that knows nothing yet; [`Engine::recover`] takes up what an earlier one left.
    ///
    /// # Errors
    ///
    /// When its directories cannot be made.
    pub fn open(config: Config, images: Store) -> std::io::Result<Arc<Self>> {
        let records = config.root.join("cri");
        let dirs = Dirs { run: config.run.clone(), root: config.root.clone() };
        let engine = Self {
            sandbox_disk: Disk::open(records.join("sandboxes"))?,
            container_disk: Disk::open(records.join("containers"))?,
            config,
            images,
            sandboxes: Table::default(),
            containers: Table::default(),
            sandbox_names: Names::default(),
            container_names: Names::default(),
            events: Events::default(),
            interest: Interest::default(),
            dirs,
        };
        Disk::open(engine.bundles())?;
        Disk::open(engine.streams())?;
        Ok(Arc::new(engine))
    }

    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        self.sandboxes.find(id).ok_or_else(|| Error::sandbox(id))
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        self.containers.find(id).ok_or_else(|| Error::container(id))
    }

    /// The containers of a pod, the oldest first.
    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let mut all = self.containers.all();
        all.retain(|container| container.sandbox.id == sandbox);
        all.sort_by_key(|container| container.record.with(|record| record.created_at));
        all
    }

    /// Starts shims of a RuntimeClass handler's pods.
    fn launcher(&self, handler: &Handler) -> Result<ShimLauncher, Error> {
        let mut launcher = ShimLauncher::find(NAMESPACE, self.dirs.clone())?;
        let files = [("HUSK_KERNEL", &handler.kernel), ("HUSK_INITRAMFS", &handler.initramfs)];
        launcher.env =
            files.into_iter().filter_map(|(name, path)| Some((name.into(), path.clone()?.into_os_string()))).collect();
        launcher.debug = handler.debug;
        Ok(launcher)
    }

    /// Where bundles are.
    fn bundles(&self) -> PathBuf {
        self.config.run.join("cri/bundles")
    }

    /// The bundle of a sandbox or a container.
    fn bundle(&self, id: &str) -> PathBuf {
        self.bundles().join(id)
    }

    /// Where the FIFOs of execs and attachments are while they are made.
    fn streams(&self) -> PathBuf {
        self.config.run.join("cri/streams")
    }
}

/// Lets an operation end, whatever becomes of the request that began it.
async fn to_its_end<T: Send + 'static>(
    operation: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(operation)
        .await
        .unwrap_or_else(|error| Err(Error::Internal(format!("the operation was cut off: {error}"))))
}

/// A new id: 64 hexadecimal digits, as CRI's clients know them.
fn new_id() -> Result<String, Error> {
    let mut bytes = [0; 32];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(32) => Ok(hex::encode(bytes)),
        Ok(count) => Err(Error::Internal(format!("the kernel gave {count} of 32 random bytes"))),
        Err(errno) => Err(Error::Internal(format!("the kernel gave no random bytes: {errno}"))),
    }
}

/// A bundle: a directory with the spec as `config.json`.
fn write_bundle(directory: &std::path::Path, spec: &oci_spec::runtime::Spec) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    std::fs::write(directory.join("config.json"), serde_json::to_vec(spec)?)
}

/// Removes a directory; that it is gone already is as good.
fn remove_directory(directory: &std::path::Path) {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("{}: {error}", directory.display());
        }
        _ => {}
    }
}
