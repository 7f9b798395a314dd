//! The pod's block devices: one slot for each image, shared by the containers that use it.
//!
//! An image is plugged at its first use and unplugged at its last. The VMM offers the image read-only where that was
//! asked for, so that a guest which is root everywhere cannot write to what other pods read.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use husk_vmm_control::{Device, SlotIndex};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::Mutex;

use crate::agent::{Agent, AgentError};
use crate::vmm::{Vmm, VmmError};

/// virtio-blk counts in sectors.
const SECTOR: u64 = 512;

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("cannot open the disk image {}: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("the disk image {} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("the disk image {} has {bytes} bytes, which is not a positive multiple of 512; it is cut short or no disk image", path.display())]
    Size { path: PathBuf, bytes: u64 },
    #[error("the host has no block device {major}:{minor}")]
    NoDevice { major: u32, minor: u32 },
    #[error("the block device {} is given to another container of the pod with other access; give it the same way everywhere", path.display())]
    Access { path: PathBuf },
    #[error("the block device {} is in use on the host: unmount it there, or take it out of what holds it", path.display())]
    Busy { path: PathBuf },
    #[error("the disk image {} is in use by another pod; a file system can be written by one machine at a time", path.display())]
    InUse { path: PathBuf },
    #[error("the disk image {} is attached read-only in this pod and cannot be written; remove its read-only user first", path.display())]
    ReadOnly { path: PathBuf },
    #[error("disk image {}: {source}", path.display())]
    Vmm { path: PathBuf, source: VmmError },
    #[error("disk image {}: {source}", path.display())]
    Agent { path: PathBuf, source: AgentError },
}

/// The files of a disk image, in their order: most have but one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskImage {
    /// The first file, by which the image is known.
    pub path: PathBuf,
    /// Those in which its blocks go on, each to its end. Such an image can only be read.
    pub more: Vec<PathBuf>,
}

impl From<PathBuf> for DiskImage {
    fn from(path: PathBuf) -> Self {
        Self { path, more: Vec::new() }
    }
}

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Many pods may read it at once.
    ReadOnly,
    /// This pod alone, for as long as it is plugged: a lock on the file says so to other pods.
    Exclusive,
}

/// A right to use a slot. Give it back with [`Devices::release`]; dropping it leaves the device in.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lease {
    key: Key,
    slot: SlotIndex,
}

impl Lease {
    pub(crate) fn slot(&self) -> u32 {
        self.slot.0
    }
}

/// A slot that is in use, for information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    pub slot: u32,
    pub image: PathBuf,
    /// The device's name in the guest, as the guest says.
    pub name: String,
    pub read_only: bool,
    pub users: u32,
}

/// The same image under two paths is one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    File { device: u64, inode: u64 },
    Block { number: u64 },
}

#[derive(Debug)]
struct Entry {
    slot: SlotIndex,
    path: PathBuf,
    name: String,
    access: Access,
    users: u32,
}

#[derive(Debug)]
pub(crate) struct Devices {
    vmm: Arc<Vmm>,
    agent: Agent,
    /// Held while a device comes or goes: two containers that want one image wait for one plug.
    table: Mutex<Table>,
    shown: std::sync::Mutex<Vec<SlotInfo>>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Key, Entry>,
    plugged: u64,
}

impl Devices {
    pub(crate) fn new(vmm: Arc<Vmm>, agent: Agent) -> Self {
        Self { vmm, agent, table: Mutex::default(), shown: std::sync::Mutex::default() }
    }

    /// Plugs the image, or shares the slot in which it already is.
    pub(crate) async fn acquire(&self, image: &DiskImage, access: Access) -> Result<Lease, DeviceError> {
        let path = image.path.as_path();
        let file = open(path, access)?;
        let key = key_of(&file, path)?;
        let mut files = vec![file];
        for path in &image.more {
            let file = open(path, access)?;
            key_of(&file, path)?;
            lock(&file, path, access)?;
            files.push(file);
        }
        let mut table = self.table.lock().await;
        match self.share(&mut table, key, path, access)? {
            Some(lease) => Ok(lease),
            None => self.plug_first(&mut table, files, key, path, access).await,
        }
    }

    /// Plugs a block device of the host, known by its numbers.
    pub(crate) async fn acquire_block(&self, major: u32, minor: u32, access: Access) -> Result<Lease, DeviceError> {
        let number = rustix::fs::makedev(major, minor);
        let key = Key::Block { number };
        let path = block_path(major, minor).ok_or(DeviceError::NoDevice { major, minor })?;
        let mut table = self.table.lock().await;
        // A read-only user of a writable slot could write.
        if table.entries.get(&key).is_some_and(|entry| entry.access != access) {
            return Err(DeviceError::Access { path });
        }
        match self.share(&mut table, key, &path, access)? {
            Some(lease) => Ok(lease),
            None => {
                let file = open_block(&path, number, access)?;
                self.plug_first(&mut table, vec![file], key, &path, access).await
            }
        }
    }

    /// The slot of a block device of the host, when the pod has it.
    pub(crate) async fn slot_of_block(&self, major: u32, minor: u32) -> Option<u32> {
        let key = Key::Block { number: rustix::fs::makedev(major, minor) };
        self.table.lock().await.entries.get(&key).map(|entry| entry.slot.0)
    }

    /// One more user of what is plugged already.
    fn share(&self, table: &mut Table, key: Key, path: &Path, access: Access) -> Result<Option<Lease>, DeviceError> {
        let Some(entry) = table.entries.get_mut(&key) else { return Ok(None) };
        if access == Access::Exclusive && entry.access == Access::ReadOnly {
            return Err(DeviceError::ReadOnly { path: path.to_owned() });
        }
        entry.users = entry.users.saturating_add(1);
        let slot = entry.slot;
        self.show(table);
        Ok(Some(Lease { key, slot }))
    }

    async fn plug_first(
        &self,
        table: &mut Table,
        files: Vec<File>,
        key: Key,
        path: &Path,
        access: Access,
    ) -> Result<Lease, DeviceError> {
        if let Some(first) = files.first() {
            lock(first, path, access)?;
        }
        table.plugged = table.plugged.wrapping_add(1);
        let serial = format!("husk-{}", table.plugged % 1_000_000_000_000);
        let (slot, name) = self.plug(&files, path, access, serial).await?;
        tracing::debug!(slot = slot.0, image = %path.display(), name, "device plugged");
        let entry = Entry { slot, path: path.to_owned(), name, access, users: 1 };
        table.entries.insert(key, entry);
        self.show(table);
        Ok(Lease { key, slot })
    }

    async fn plug(
        &self,
        files: &[File],
        path: &Path,
        access: Access,
        serial: String,
    ) -> Result<(SlotIndex, String), DeviceError> {
        let device = Device::Blk { read_only: access == Access::ReadOnly, serial };
        let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        plug(&self.vmm, &self.agent, device, &files).await.map_err(|error| match error {
            PlugError::Vmm(source) => DeviceError::Vmm { path: path.to_owned(), source },
            PlugError::Guest(source) => DeviceError::Agent { path: path.to_owned(), source },
        })
    }

    /// Gives a lease back; the last one unplugs. Cannot fail: a guest that holds on has the device torn away.
    pub(crate) async fn release(&self, lease: Lease) {
        let mut table = self.table.lock().await;
        let Some(entry) = table.entries.get_mut(&lease.key) else { return };
        entry.users = entry.users.saturating_sub(1);
        if entry.users > 0 {
            self.show(&table);
            return;
        }
        let Some(entry) = table.entries.remove(&lease.key) else { return };
        self.show(&table);
        self.unplug(&entry).await;
    }

    async fn unplug(&self, entry: &Entry) {
        let slot = entry.slot;
        let refused = match self.agent.unplug_device(slot.0).await {
            Ok(()) => false,
            Err(AgentError::Ended(_)) => return,
            Err(error) => {
                tracing::warn!(slot = slot.0, image = %entry.path.display(), %error, "guest does not let go of a device");
                true
            }
        };
        let result = match self.vmm.unplug(slot, refused).await {
            Err(VmmError::Refused { .. }) => self.vmm.unplug(slot, true).await,
            result => result,
        };
        match result {
            Ok(()) => tracing::debug!(slot = slot.0, image = %entry.path.display(), "device unplugged"),
            Err(VmmError::Ended(_)) => {}
            Err(error) => tracing::warn!(slot = slot.0, %error, "slot not emptied"),
        }
    }

    /// Slots in use; does not wait for a plug that is under way.
    pub(crate) fn list(&self) -> Vec<SlotInfo> {
        self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn show(&self, table: &Table) {
        let mut list: Vec<SlotInfo> = table
            .entries
            .values()
            .map(|entry| SlotInfo {
                slot: entry.slot.0,
                image: entry.path.clone(),
                name: entry.name.clone(),
                read_only: entry.access == Access::ReadOnly,
                users: entry.users,
            })
            .collect();
        list.sort_by_key(|info| info.slot);
        *self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = list;
    }
}

/// Who did not take a device.
#[derive(Debug)]
pub(crate) enum PlugError {
    Vmm(VmmError),
    Guest(AgentError),
}

/// Fills a slot and has the guest bind the driver; answers with the slot and the guest's name for the device. A device
/// that the guest does not take is torn away, so that its slot is free again.
pub(crate) async fn plug(
    vmm: &Vmm,
    agent: &Agent,
    device: Device,
    resources: &[BorrowedFd<'_>],
) -> Result<(SlotIndex, String), PlugError> {
    let slot = vmm.plug(device, resources).await.map_err(PlugError::Vmm)?;
    match agent.plug_device(slot.0).await {
        Ok(name) => Ok((slot, name)),
        Err(source) => {
            if let Err(error) = vmm.unplug(slot, true).await {
                tracing::warn!(slot = slot.0, %error, "slot not emptied");
            }
            Err(PlugError::Guest(source))
        }
    }
}

fn open(path: &Path, access: Access) -> Result<File, DeviceError> {
    OpenOptions::new()
        .read(true)
        .write(access == Access::Exclusive)
        .open(path)
        .map_err(|source| DeviceError::Open { path: path.to_owned(), source })
}

/// Where the device node of a block device is (`Documentation/ABI/testing/sysfs-block`).
fn block_path(major: u32, minor: u32) -> Option<PathBuf> {
    let uevent = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

/// For writing, a device must not be in use on the host: mounted, swapped to, or part of another (open(2), `O_EXCL`).
fn open_block(path: &Path, number: u64, access: Access) -> Result<File, DeviceError> {
    let exclusive = if access == Access::Exclusive { libc::O_EXCL } else { 0 };
    let opened =
        OpenOptions::new().read(true).write(access == Access::Exclusive).custom_flags(exclusive).open(path).map_err(
            |source| match source.raw_os_error() {
                Some(libc::EBUSY) => DeviceError::Busy { path: path.to_owned() },
                _ => DeviceError::Open { path: path.to_owned(), source },
            },
        )?;
    let metadata = opened.metadata().map_err(|source| DeviceError::Open { path: path.to_owned(), source })?;
    if !metadata.file_type().is_block_device() || metadata.rdev() != number {
        return Err(DeviceError::NotAFile { path: path.to_owned() });
    }
    Ok(opened)
}

/// Block devices of the host are not taken for images (CVE-2026-24054 of a peer: a host disk plugged in by mistake).
fn key_of(file: &File, path: &Path) -> Result<Key, DeviceError> {
    let metadata = file.metadata().map_err(|source| DeviceError::Open { path: path.to_owned(), source })?;
    if !metadata.is_file() || metadata.file_type().is_block_device() {
        return Err(DeviceError::NotAFile { path: path.to_owned() });
    }
    let bytes = metadata.len();
    if bytes == 0 || !bytes.is_multiple_of(SECTOR) {
        return Err(DeviceError::Size { path: path.to_owned(), bytes });
    }
    Ok(Key::File { device: metadata.dev(), inode: metadata.ino() })
}

/// The lock belongs to the open file that the VMM gets, so it lasts as long as the VMM has it.
fn lock(file: &File, path: &Path, access: Access) -> Result<(), DeviceError> {
    let operation = match access {
        Access::ReadOnly => FlockOperation::NonBlockingLockShared,
        Access::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match rustix::io::retry_on_intr(|| flock(file, operation)) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DeviceError::InUse { path: path.to_owned() }),
        Err(error) => Err(DeviceError::Open { path: path.to_owned(), source: error.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_regular_files_are_images() {
        let dir = tempfile::tempdir().unwrap();
        let check = |path: &Path| open(path, Access::ReadOnly).and_then(|file| key_of(&file, path));
        assert!(matches!(check(&dir.path().join("none")), Err(DeviceError::Open { .. })));
        assert!(matches!(check(Path::new("/dev/null")), Err(DeviceError::NotAFile { .. })));
        assert!(matches!(check(dir.path()), Err(DeviceError::NotAFile { .. })));
        for (bytes, good) in [(0, false), (511, false), (4096, true)] {
            let path = dir.path().join(bytes.to_string());
            File::create(&path).unwrap().set_len(bytes).unwrap();
            assert_eq!(check(&path).is_ok(), good, "{bytes}");
        }
    }

    #[test]
    fn one_writer_or_many_readers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(4096).unwrap();
        let take = |access| {
            let file = open(&path, access).unwrap();
            lock(&file, &path, access).map(|()| file)
        };
        let reader = take(Access::ReadOnly).unwrap();
        let second = take(Access::ReadOnly).unwrap();
        assert!(matches!(take(Access::Exclusive), Err(DeviceError::InUse { .. })));
        drop((reader, second));
        let _writer = take(Access::Exclusive).unwrap();
        assert!(matches!(take(Access::ReadOnly), Err(DeviceError::InUse { .. })));
    }
}
