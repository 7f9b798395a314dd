//! Directories that the pod's containers share: which there are, and who uses them. `make` makes each kind.

mod make;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use husk_agent_api::v1::create_volume_request::Source;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;

use self::make::{make_directory, remove_socket};
use super::slots::{Slots, blocking, sync, unmount};
use super::trim::{Trimming, keep_trimmed};
use crate::error::{Context, Error, Result};
use crate::fs::mount::{Detached, clone_at};
use crate::fs::remove::remove_tree;
use crate::fs::resolve::{Links, Missing, resolve};
use crate::paths;
use crate::stdio::Streams;

/// Most volumes of a pod.
const MAX_VOLUMES: usize = 1024;

/// The scratch disk and all volumes.
#[derive(Debug, Default)]
pub struct Volumes {
    table: Mutex<Table>,
    /// The slot whose device shows the trees of the host, once it is mounted.
    shared: tokio::sync::Mutex<Option<u32>>,
    /// Where sockets of the host wait for connections.
    streams: Arc<Streams>,
    /// There while the scratch disk is mounted.
    trimming: Mutex<Option<Trimming>>,
}

#[derive(Debug, Default)]
struct Table {
    scratch: Scratch,
    volumes: HashMap<String, Volume>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Scratch {
    #[default]
    Absent,
    Mounting,
    Mounted {
        slot: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ScratchDirectory,
    Tmpfs,
    Block { slot: u32 },
    Shared,
    Socket { token: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Volume {
    /// Being made or removed.
    Busy,
    Ready {
        kind: Kind,
        users: usize,
    },
}

impl Kind {
    fn path(self, name: &str) -> PathBuf {
        match self {
            Self::ScratchDirectory => paths::scratch_volume(name),
            Self::Tmpfs | Self::Block { .. } | Self::Socket { .. } => paths::volume(name),
            Self::Shared => paths::shared_volume(name),
        }
    }
}

impl Volumes {
    /// None yet. Sockets will be among `streams`.
    pub fn new(streams: Arc<Streams>) -> Self {
        Self { streams, ..Self::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether writable layers have a place.
    pub fn has_scratch(&self) -> bool {
        matches!(self.table().scratch, Scratch::Mounted { .. })
    }

    /// The scratch disk's slot, while it is mounted.
    pub fn scratch_slot(&self) -> Option<u32> {
        match self.table().scratch {
            Scratch::Mounted { slot } => Some(slot),
            _ => None,
        }
    }

    /// Mounts the scratch disk.
    pub async fn mount_scratch(&self, slots: &Slots, slot: u32, fs_type: &str) -> Result<()> {
        if fs_type != "ext4" {
            return Err(Error::invalid(format!("fs_type: {fs_type:?} is not ext4")));
        }
        {
            let mut table = self.table();
            if table.scratch != Scratch::Absent {
                return Err(Error::AlreadyExists("the scratch disk is mounted already".to_owned()));
            }
            table.scratch = Scratch::Mounting;
        }
        let flags = MountFlags::NODEV | MountFlags::NOATIME;
        let mounted = slots
            // Limits of volumes are enforced only where the mount says so.
            .mount_exclusive(slot, "scratch".to_owned(), paths::SCRATCH.into(), "ext4", flags, c"prjquota")
            .await;
        let mounted = match mounted {
            Ok(()) => make_scratch_directories(),
            Err(error) => Err(error),
        };
        self.table().scratch = if mounted.is_ok() { Scratch::Mounted { slot } } else { Scratch::Absent };
        if mounted.is_ok() {
            let trimming = Trimming::default();
            tokio::spawn(keep_trimmed(Arc::downgrade(&trimming)));
            *self.trimming.lock().unwrap_or_else(PoisonError::into_inner) = Some(trimming);
        }
        mounted
    }

    /// Syncs and unmounts everything. For the end of the VM: goes on after failures and returns the first.
    pub async fn unmount_all(&self, slots: &Slots) -> Result<()> {
        let (scratch, volumes) = {
            let mut table = self.table();
            (std::mem::take(&mut table.scratch), std::mem::take(&mut table.volumes))
        };
        let mut result = Ok(());
        for (name, volume) in volumes {
            if let Volume::Ready { kind: kind @ (Kind::Tmpfs | Kind::Block { .. }), .. } = volume {
                result = result.and(unmount(kind.path(&name)).await);
            }
        }
        if let Some(slot) = self.shared.lock().await.take() {
            result = result.and(slots.unmount_exclusive(slot, paths::SHARED.into()).await);
        }
        let trimming = self.trimming.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(trimming) = trimming {
            drop(trimming.lock().await);
        }
        if let Scratch::Mounted { slot } = scratch {
            let synced = blocking(|| sync(Path::new(paths::SCRATCH))).await;
            result = result.and(synced.and_then(|synced| synced));
            result = result.and(slots.unmount_exclusive(slot, paths::SCRATCH.into()).await);
        }
        result
    }

    /// Makes a volume.
    pub async fn create(&self, slots: &Slots, name: &str, source: Source, gid: Option<u32>) -> Result<()> {
        {
            let mut table = self.table();
            if table.volumes.contains_key(name) {
                return Err(Error::AlreadyExists(format!("volume {name} exists")));
            }
            if table.volumes.len() >= MAX_VOLUMES {
                return Err(Error::Exhausted(format!("{MAX_VOLUMES} volumes exist")));
            }
            table.volumes.insert(name.to_owned(), Volume::Busy);
        }
        let made = self.make(slots, name, source, gid).await;
        let mut table = self.table();
        match made {
            Ok(kind) => {
                table.volumes.insert(name.to_owned(), Volume::Ready { kind, users: 0 });
                Ok(())
            }
            Err(error) => {
                table.volumes.remove(name);
                Err(error.during(format_args!("volume {name}")))
            }
        }
    }

    /// Removes a volume and what is in it (a block volume is only unmounted, and a tree of the host left alone).
    pub async fn remove(&self, slots: &Slots, name: &str) -> Result<()> {
        let kind = {
            let mut table = self.table();
            match table.volumes.get(name) {
                None => return Ok(()),
                Some(Volume::Busy) => {
                    return Err(Error::precondition(format!("volume {name} is being made or removed")));
                }
                Some(Volume::Ready { users: users @ 1.., .. }) => {
                    return Err(Error::precondition(format!("volume {name} is used by {users} container(s)")));
                }
                Some(Volume::Ready { kind, .. }) => {
                    let kind = *kind;
                    table.volumes.insert(name.to_owned(), Volume::Busy);
                    kind
                }
            }
        };
        let path = kind.path(name);
        let removed = match kind {
            Kind::ScratchDirectory => blocking(move || remove_tree(&path)).await.and_then(|removed| removed),
            Kind::Tmpfs => unmount(path).await,
            Kind::Block { slot } => slots.unmount_exclusive(slot, path).await,
            // The device shows others too, and stays.
            Kind::Shared => Ok(()),
            Kind::Socket { token } => {
                self.streams.remove(token);
                remove_socket(&path)
            }
        };
        let mut table = self.table();
        match removed {
            Ok(()) => {
                table.volumes.remove(name);
                Ok(())
            }
            Err(error) => {
                table.volumes.insert(name.to_owned(), Volume::Ready { kind, users: 0 });
                Err(error.during(format_args!("volume {name}")))
            }
        }
    }

    /// Counts a user of a volume.
    pub fn acquire(&self, name: &str) -> Result<()> {
        match self.table().volumes.get_mut(name) {
            Some(Volume::Ready { users, .. }) => {
                *users = users.saturating_add(1);
                Ok(())
            }
            Some(Volume::Busy) => Err(Error::precondition(format!("volume {name} is being made or removed"))),
            None => Err(Error::NotFound(format!("volume {name} does not exist; create it first"))),
        }
    }

    /// Takes a user away.
    pub fn release(&self, name: &str) {
        if let Some(Volume::Ready { users, .. }) = self.table().volumes.get_mut(name) {
            *users = users.saturating_sub(1);
        }
    }

    /// A detached bind of a volume, or of a path below it. Missing directories are made; links stay in the volume.
    pub async fn open(&self, name: &str, sub_path: &str) -> Result<Detached> {
        let kind = match self.table().volumes.get(name) {
            Some(Volume::Ready { kind, .. }) => *kind,
            _ => return Err(Error::NotFound(format!("volume {name} does not exist; create it first"))),
        };
        let (name, sub_path) = (name.to_owned(), sub_path.to_owned());
        // The host's file systems may be slow, and its disks too.
        blocking(move || open(kind, &name, &sub_path)).await?
    }
}

fn open(kind: Kind, name: &str, sub_path: &str) -> Result<Detached> {
    let path = kind.path(name);
    let mut flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Only what the host shares may be a single file.
    if !matches!(kind, Kind::Shared | Kind::Socket { .. }) {
        flags |= OFlags::DIRECTORY;
    }
    let mut at: OwnedFd = rustix::fs::open(&path, flags, Mode::empty()).on("open", path.display())?;
    if !sub_path.is_empty() {
        at = resolve(&at, Path::new(sub_path), Missing::DirectoryLikeRoot, Links::Follow)
            .map_err(|error| error.during(format_args!("sub_path of volume {name}")))?;
    }
    clone_at(&at, false).on("open_tree", format_args!("volume {name}"))
}

fn make_scratch_directories() -> Result<()> {
    for name in ["volumes", "containers"] {
        let path = Path::new(paths::SCRATCH).join(name);
        remove_tree(&path)?;
        make_directory(&path, 0o700)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use husk_agent_api::v1::ScratchDirectory;

    use super::*;

    #[tokio::test]
    async fn a_scratch_volume_needs_the_scratch_disk() {
        let (volumes, slots) = (Volumes::default(), Slots::new());
        let error =
            volumes.create(&slots, "data", Source::Scratch(ScratchDirectory::default()), None).await.unwrap_err();
        assert!(matches!(error, Error::FailedPrecondition(_)), "{error}");
        assert!(matches!(volumes.acquire("data"), Err(Error::NotFound(_))));
    }

    #[tokio::test]
    async fn a_volume_in_use_is_not_removed() {
        let (volumes, slots) = (Volumes::default(), Slots::new());
        let ready = Volume::Ready { kind: Kind::ScratchDirectory, users: 0 };
        volumes.table().volumes.insert("data".to_owned(), ready);
        volumes.acquire("data").unwrap();
        assert!(matches!(volumes.remove(&slots, "data").await, Err(Error::FailedPrecondition(_))));
        volumes.release("data");
        volumes.remove(&slots, "data").await.unwrap();
        volumes.remove(&slots, "data").await.unwrap();
    }
}
