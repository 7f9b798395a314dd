//! A container as huskd knows it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use husk_client::Usage;
use prost::Message as _;

use super::disk::Disk;
use super::record::{ContainerPhase, ContainerRecord};
use super::recorded::Recorded;
use super::sandbox::Sandbox;
use crate::api::{ContainerConfig, ContainerMetadata, LinuxContainerResources};
use crate::stats::Sampled;

/// One container. Shared by all who serve requests about it.
#[derive(Debug)]
pub struct Container {
    pub id: String,
    pub sandbox: Arc<Sandbox>,
    /// As it was asked for.
    pub config: ContainerConfig,
    /// Taken by whoever starts, updates or removes it. Never held by List or Status, nor while its end is waited for.
    pub changing: tokio::sync::Mutex<()>,
    pub record: Recorded<ContainerRecord>,
    /// What it takes, or took when it was last seen running.
    pub sampled: Sampled<Usage>,
}

impl Container {
    /// A container that is being made; it is on disk from now on.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn create(
        disk: &Disk,
        sandbox: Arc<Sandbox>,
        config: ContainerConfig,
        record: ContainerRecord,
    ) -> io::Result<Arc<Self>> {
        disk.create(&record.id, &config, &record)?;
        Ok(Self::known(disk, sandbox, config, record))
    }

    /// A container that is on disk.
    #[must_use]
    pub fn known(disk: &Disk, sandbox: Arc<Sandbox>, config: ContainerConfig, record: ContainerRecord) -> Arc<Self> {
        let id = record.id.clone();
        Arc::new(Self {
            record: Recorded::new(&id, record, disk),
            id,
            sandbox,
            config,
            changing: tokio::sync::Mutex::default(),
            sampled: Sampled::default(),
        })
    }

    #[must_use]
    pub fn phase(&self) -> ContainerPhase {
        self.record.with(|record| record.phase.clone())
    }

    /// Waits until its end is known.
    pub async fn exited(&self) {
        self.record.wait_for(|record| record.phase.has_exited()).await;
    }

    /// Its metadata; validated when it was made.
    #[must_use]
    pub fn metadata(&self) -> ContainerMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    /// The resources in force.
    #[must_use]
    pub fn resources(&self) -> LinuxContainerResources {
        self.record.with(|record| LinuxContainerResources::decode(record.resources.as_slice())).unwrap_or_default()
    }

    /// The absolute path of its log; `None` when it has none.
    #[must_use]
    pub fn log_path(&self) -> Option<PathBuf> {
        self.sandbox.log_path(&self.config.log_path)
    }
}
