//! Directories that the pod's containers share.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use husk_agent_api::v1::{BlockVolume, SharedTree, create_volume_request::Source};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;

use super::slots::{Slots, blocking, sync, unmount};
use crate::error::{Context, Error, Result};
use crate::fs::mount::{Detached, clone_at};
use crate::fs::remove::remove_tree;
use crate::fs::resolve::{Links, Missing, resolve};
use crate::paths;

/// Most volumes of a pod.
const MAX_VOLUMES: usize = 1024;

/// The scratch disk and all volumes.
#[derive(Debug, Default)]
pub struct Volumes {
    table: Mutex<Table>,
    /// The slot whose device shows the trees of the host, once it is mounted.
    shared: tokio::sync::Mutex<Option<u32>>,
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

/// The file systems that a block device may carry.
fn known_fs(field: &str, fs_type: &str) -> Result<&'static str> {
    match fs_type {
        "ext4" => Ok("ext4"),
        "erofs" => Ok("erofs"),
        other => Err(Error::invalid(format!("{field}: {other:?} is neither ext4 nor erofs"))),
    }
}

impl Kind {
    fn path(self, name: &str) -> PathBuf {
        match self {
            Self::ScratchDirectory => paths::scratch_volume(name),
            Self::Tmpfs | Self::Block { .. } => paths::volume(name),
            Self::Shared => paths::shared_volume(name),
        }
    }
}

impl Volumes {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether writable layers have a place.
    pub fn has_scratch(&self) -> bool {
        matches!(self.table().scratch, Scratch::Mounted { .. })
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
        let mounted = slots.mount_exclusive(slot, "scratch".to_owned(), paths::SCRATCH.into(), "ext4", flags).await;
        let mounted = match mounted {
            Ok(()) => make_scratch_directories(),
            Err(error) => Err(error),
        };
        self.table().scratch = if mounted.is_ok() { Scratch::Mounted { slot } } else { Scratch::Absent };
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
        if let Scratch::Mounted { slot } = scratch {
            let synced = blocking(|| sync(Path::new(paths::SCRATCH))).await;
            result = result.and(synced.and_then(|synced| synced));
            result = result.and(slots.unmount_exclusive(slot, paths::SCRATCH.into()).await);
        }
        result
    }

    /// Makes a volume.
    pub async fn create(&self, slots: &Slots, name: &str, source: Source) -> Result<()> {
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
        let made = self.make(slots, name, source).await;
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

    async fn make(&self, slots: &Slots, name: &str, source: Source) -> Result<Kind> {
        match source {
            Source::Scratch(_) => {
                if !self.has_scratch() {
                    return Err(Error::precondition("the pod has no scratch disk yet; mount it first"));
                }
                make_directory(&paths::scratch_volume(name), 0o777)?;
                Ok(Kind::ScratchDirectory)
            }
            Source::Tmpfs(tmpfs) => {
                let target = paths::volume(name);
                std::fs::create_dir_all(&target).on("mkdir", target.display())?;
                let mut data = String::from("mode=0777");
                if tmpfs.size_bytes != 0 {
                    data = format!("{data},size={}", tmpfs.size_bytes);
                }
                let data = std::ffi::CString::new(data).map_err(|_| Error::invalid("tmpfs options"))?;
                rustix::mount::mount("tmpfs", &target, "tmpfs", MountFlags::NODEV, data.as_c_str())
                    .on("mount", target.display())?;
                Ok(Kind::Tmpfs)
            }
            Source::Block(BlockVolume { slot, fs_type, read_only }) => {
                let fs_type = known_fs("block.fs_type", &fs_type)?;
                let mut flags = MountFlags::NODEV | MountFlags::NOATIME;
                if read_only || fs_type == "erofs" {
                    flags |= MountFlags::RDONLY;
                }
                slots.mount_exclusive(slot, format!("volume {name}"), paths::volume(name), fs_type, flags).await?;
                Ok(Kind::Block { slot })
            }
            Source::Shared(SharedTree { slot, tag }) => {
                self.mount_shared(slots, slot, tag).await?;
                let tree = paths::shared_volume(name);
                blocking(move || rustix::fs::lstat(&tree).on("lstat", tree.display())).await??;
                Ok(Kind::Shared)
            }
        }
    }

    /// Mounts the file system with the trees of the host, if it is not yet.
    async fn mount_shared(&self, slots: &Slots, slot: u32, tag: String) -> Result<()> {
        let mut mounted = self.shared.lock().await;
        match *mounted {
            Some(mounted) if mounted == slot => Ok(()),
            Some(mounted) => Err(Error::precondition(format!(
                "shared.slot: the trees of the host are in slot {mounted}, and one device shows all of a pod's"
            ))),
            None => {
                if tag.is_empty() || !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(Error::invalid("shared.tag: not printable ASCII without space"));
                }
                // A device node of the host means nothing here.
                let flags = MountFlags::NODEV;
                slots.mount_shared(slot, tag, paths::SHARED.into(), flags).await?;
                *mounted = Some(slot);
                Ok(())
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
    // Only the host may share a single file.
    if kind != Kind::Shared {
        flags |= OFlags::DIRECTORY;
    }
    let mut at: OwnedFd = rustix::fs::open(&path, flags, Mode::empty()).on("open", path.display())?;
    if !sub_path.is_empty() {
        at = resolve(&at, Path::new(sub_path), Missing::DirectoryLikeRoot, Links::Follow)
            .map_err(|error| error.during(format_args!("sub_path of volume {name}")))?;
    }
    clone_at(&at, false).on("open_tree", format_args!("volume {name}"))
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) => {}
        Err(errno) => return Err(errno).on("mkdir", path.display()),
    }
    // Not subject to any umask.
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).on("chmod", path.display())
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
    use super::*;
    use husk_agent_api::v1::ScratchDirectory;

    #[tokio::test]
    async fn a_scratch_volume_needs_the_scratch_disk() {
        let (volumes, slots) = (Volumes::default(), Slots::new());
        let error = volumes.create(&slots, "data", Source::Scratch(ScratchDirectory {})).await.unwrap_err();
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

    #[test]
    fn only_file_systems_of_ours_are_mounted() {
        assert!(known_fs("fs_type", "ext4").is_ok());
        assert!(known_fs("fs_type", "vfat").is_err());
    }
}
