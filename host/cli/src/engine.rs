//! What every command works with: where things are, the pods, the image store, and the way to a pod's shim.

use anyhow::Context as _;
use husk_client::{ConnectError, Dirs, Shim, ShimLauncher};
use husk_image::Store;

use crate::error::Advise as _;
use crate::paths::{Paths, SHIM_NAMESPACE};
use crate::pods::directory::Pods;

#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) paths: Paths,
    pub(crate) pods: Pods,
    dirs: Dirs,
}

impl Engine {
    /// # Errors
    ///
    /// When not run by root: VMs, cgroups and the state directories need it.
    pub(crate) fn open() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(anyhow::anyhow!("husk needs root: it makes VMs, cgroups and mounts"))
                .hint("run it with sudo, or as root");
        }
        let paths = Paths::from_env()?;
        let dirs = Dirs { run: paths.run().to_owned(), root: paths.root().to_owned() };
        Ok(Self { pods: Pods::new(&paths), paths, dirs })
    }

    pub(crate) fn store(&self) -> anyhow::Result<Store> {
        Store::open(self.paths.images()).context("cannot open the image store")
    }

    pub(crate) fn launcher(&self) -> anyhow::Result<ShimLauncher> {
        Ok(ShimLauncher::find(SHIM_NAMESPACE, self.dirs.clone())?)
    }

    /// The shim of a pod, or `None` when it does not run.
    pub(crate) async fn connect(&self, pod: &str) -> Result<Option<Shim>, ConnectError> {
        match Shim::connect(&self.dirs, SHIM_NAMESPACE, pod).await {
            Ok(shim) => Ok(Some(shim)),
            Err(ConnectError::NotRunning { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
