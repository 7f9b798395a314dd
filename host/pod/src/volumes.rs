//! The pod's volumes: what its containers share beyond their images.
//!
//! A named volume is made at its first use and lives as long as the pod, as an emptyDir does. A disk is a block device
//! with a file system; it is mounted for its first user and taken out after its last.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use husk_agent_api::v1;
use tokio::sync::Mutex;

use crate::agent::{Agent, AgentError};
use crate::devices::{Access, DeviceError, Devices, DiskImage, Lease};
use crate::shares::ShareError;
use crate::spec::{DiskFs, Medium, VolumeWanted};

/// Prefix of the names of disks; named volumes cannot have it.
const DISK: &str = "husk.disk.";

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("volume {name} exists with another medium or size; give every mount of it the same options")]
    Conflict { name: String },
    #[error("the disk {} is in use read-only in this pod and cannot be written; mount it the same way everywhere", path.display())]
    ReadOnly { path: PathBuf },
    #[error("volume {name}: {source}")]
    Agent { name: String, source: AgentError },
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Share(#[from] ShareError),
}

/// A right to use a disk; see [`Volumes::release_disk`].
#[derive(Debug)]
#[must_use]
pub(crate) struct DiskLease {
    path: PathBuf,
    name: String,
}

impl DiskLease {
    /// The volume's name in the guest.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Debug)]
pub(crate) struct Volumes {
    agent: Agent,
    devices: Arc<Devices>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    named: HashMap<String, Medium>,
    disks: HashMap<PathBuf, Disk>,
    disks_made: u64,
}

#[derive(Debug)]
struct Disk {
    name: String,
    lease: Lease,
    read_only: bool,
    users: u32,
}

impl Volumes {
    pub(crate) fn new(agent: Agent, devices: Arc<Devices>) -> Self {
        Self { agent, devices, table: Mutex::default() }
    }

    /// Makes the volume, or checks that the existing one is what is wanted.
    pub(crate) async fn ensure(&self, wanted: &VolumeWanted) -> Result<(), VolumeError> {
        let name = &wanted.name;
        let mut table = self.table.lock().await;
        if let Some(existing) = table.named.get(name) {
            return match wanted.medium {
                Some(medium) if medium != *existing => Err(VolumeError::Conflict { name: name.clone() }),
                _ => Ok(()),
            };
        }
        let medium = wanted.medium.unwrap_or(Medium::Disk { size_bytes: 0 });
        let source = match medium {
            Medium::Disk { size_bytes } => {
                v1::create_volume_request::Source::Scratch(v1::ScratchDirectory { size_bytes })
            }
            Medium::Memory { size_bytes } => v1::create_volume_request::Source::Tmpfs(v1::Tmpfs { size_bytes }),
        };
        self.create(name, source, wanted.gid).await?;
        table.named.insert(name.clone(), medium);
        Ok(())
    }

    async fn create(
        &self,
        name: &str,
        source: v1::create_volume_request::Source,
        gid: Option<u32>,
    ) -> Result<(), VolumeError> {
        let request = v1::CreateVolumeRequest { name: name.into(), source: Some(source), gid };
        let result = self.agent.create_volume(request).await;
        result.map_err(|source| VolumeError::Agent { name: name.into(), source })
    }

    /// Attaches a file system image, or shares it where it already is.
    pub(crate) async fn acquire_disk(
        &self,
        image: &DiskImage,
        fs_type: DiskFs,
        read_only: bool,
    ) -> Result<DiskLease, VolumeError> {
        let path = image.path.as_path();
        let mut table = self.table.lock().await;
        if let Some(disk) = table.disks.get_mut(path) {
            if disk.read_only && !read_only {
                return Err(VolumeError::ReadOnly { path: path.to_owned() });
            }
            disk.users = disk.users.saturating_add(1);
            return Ok(DiskLease { path: path.to_owned(), name: disk.name.clone() });
        }
        let access = if read_only { Access::ReadOnly } else { Access::Exclusive };
        let lease = self.devices.acquire(image, access).await?;
        table.disks_made = table.disks_made.wrapping_add(1);
        let name = format!("{DISK}{}", table.disks_made);
        let block = v1::BlockVolume { slot: lease.slot(), fs_type: fs_type.name().into(), read_only };
        if let Err(error) = self.create(&name, v1::create_volume_request::Source::Block(block), None).await {
            self.devices.release(lease).await;
            return Err(error);
        }
        table.disks.insert(path.to_owned(), Disk { name: name.clone(), lease, read_only, users: 1 });
        Ok(DiskLease { path: path.to_owned(), name })
    }

    /// Gives a disk back; the last user's unmounts and unplugs it.
    pub(crate) async fn release_disk(&self, lease: DiskLease) {
        let mut table = self.table.lock().await;
        let Some(disk) = table.disks.get_mut(&lease.path) else { return };
        disk.users = disk.users.saturating_sub(1);
        if disk.users > 0 {
            return;
        }
        let Some(disk) = table.disks.remove(&lease.path) else { return };
        if let Err(error) = self.agent.remove_volume(disk.name.clone()).await
            && !matches!(error, AgentError::Ended(_))
        {
            tracing::warn!(volume = disk.name, %error, "guest does not unmount a disk");
        }
        self.devices.release(disk.lease).await;
    }
}
