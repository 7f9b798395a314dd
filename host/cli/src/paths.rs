//! Where husk keeps things: the persistent tree (`HUSK_ROOT`) and the one that a reboot may empty (`HUSK_RUN`).

use std::env;
use std::path::{Path, PathBuf};

/// The namespace that the CLI's pods have towards the shim, beside containerd's `k8s.io` and `default`.
pub(crate) const SHIM_NAMESPACE: &str = "husk";

/// The two trees and what is where in them.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    root: PathBuf,
    run: PathBuf,
}

impl Paths {
    /// From the environment variables `HUSK_ROOT` (default `/var/lib/husk`) and `HUSK_RUN` (default `/run/husk`).
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        Ok(Self { root: absolute("HUSK_ROOT", "/var/lib/husk")?, run: absolute("HUSK_RUN", "/run/husk")? })
    }

    #[cfg(test)]
    pub(crate) fn below(dir: &Path) -> Self {
        Self { root: dir.join("root"), run: dir.join("run") }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// The image store.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Named volumes, one directory each.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// One directory per pod, named by its id.
    pub(crate) fn pods(&self) -> PathBuf {
        self.run.join("pods")
    }
}

fn absolute(variable: &str, default: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os(variable).filter(|v| !v.is_empty()).map_or_else(|| PathBuf::from(default), PathBuf::from);
    anyhow::ensure!(path.is_absolute(), "{variable} must be an absolute path, not {}", path.display());
    Ok(path)
}
