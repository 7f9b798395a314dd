//! A pod as huskd knows it.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use husk_client::Shim;

use super::disk::Disk;
use super::record::{SandboxPhase, SandboxRecord};
use super::recorded::Recorded;
use crate::api::{NamespaceOption, PodSandboxConfig, PodSandboxMetadata};
use crate::stats::PodSamples;

/// One pod. Shared by all who serve requests about it.
#[derive(Debug)]
pub struct Sandbox {
    pub id: String,
    /// As it was asked for.
    pub config: PodSandboxConfig,
    /// Taken by whoever changes the pod: of two stops one finds the work done. Never held by List or Status.
    pub changing: tokio::sync::Mutex<()>,
    pub record: Recorded<SandboxRecord>,
    /// What it takes, as far as somebody wants to know.
    pub samples: PodSamples,
    shim: Mutex<Option<Shim>>,
}

impl Sandbox {
    /// A pod that is being made; it is on disk from now on.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn create(disk: &Disk, config: PodSandboxConfig, record: SandboxRecord) -> io::Result<Arc<Self>> {
        disk.create(&record.id, &config, &record)?;
        Ok(Self::known(disk, config, record))
    }

    /// A pod that is on disk.
    #[must_use]
    pub fn known(disk: &Disk, config: PodSandboxConfig, record: SandboxRecord) -> Arc<Self> {
        let id = record.id.clone();
        Arc::new(Self {
            record: Recorded::new(&id, record, disk),
            id,
            config,
            changing: tokio::sync::Mutex::default(),
            samples: PodSamples::default(),
            shim: Mutex::default(),
        })
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.record.with(|record| record.phase == SandboxPhase::Ready)
    }

    /// The pod's metadata; validated when it was made.
    #[must_use]
    pub fn metadata(&self) -> PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    /// The namespaces that were asked for.
    #[must_use]
    pub fn namespaces(&self) -> NamespaceOption {
        let linux = self.config.linux.as_ref();
        let context = linux.and_then(|linux| linux.security_context.as_ref());
        context.and_then(|context| context.namespace_options.clone()).unwrap_or_default()
    }

    /// What the pod calls itself.
    #[must_use]
    pub fn hostname(&self) -> String {
        // As the shim has it: the kernel's __NEW_UTS_LEN bounds it.
        let own = self.id.get(..64).unwrap_or(&self.id);
        if self.config.hostname.is_empty() { own.to_owned() } else { self.config.hostname.clone() }
    }

    /// The absolute path of a container's log; `None` when it has none.
    #[must_use]
    pub fn log_path(&self, container: &str) -> Option<PathBuf> {
        let (directory, name) = (&self.config.log_directory, container);
        (!directory.is_empty() && !name.is_empty()).then(|| PathBuf::from(directory).join(name))
    }

    /// The pod's shim, while it runs.
    #[must_use]
    pub fn shim(&self) -> Option<Shim> {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_shim(&self, shim: Option<Shim>) {
        *self.shim.lock().unwrap_or_else(PoisonError::into_inner) = shim;
    }
}
