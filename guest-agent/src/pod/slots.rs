//! Devices in virtio-mmio slots, and the file systems of images on them.
//!
//! The virtual machine monitor fills a slot, we bind the driver; it is a stock kernel's whole hotplug. A slot's block
//! device serves one purpose at a time: image (shared by containers, mounted while one uses it), scratch or volume.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::{Context, Error, Result};
use crate::paths;

/// How long a bound device may take to become usable, in steps of [`STEP`].
const STEPS: u32 = 200;
const STEP: Duration = Duration::from_millis(10);

/// What a slot's device is used for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Purpose {
    #[default]
    None,
    Image {
        users: usize,
    },
    Exclusive(String),
}

/// All slots.
#[derive(Debug)]
pub struct Slots {
    platform: PathBuf,
    driver: PathBuf,
    /// Each slot has a lock of its own: what is awaited under it is the host's device, never a container.
    table: Mutex<HashMap<u32, Arc<tokio::sync::Mutex<Purpose>>>>,
}

impl Slots {
    /// The slots of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Path::new(paths::PLATFORM), Path::new(paths::VIRTIO_MMIO_DRIVER))
    }

    fn at(platform: &Path, driver: &Path) -> Self {
        Self { platform: platform.to_owned(), driver: driver.to_owned(), table: Mutex::default() }
    }

    fn slot(&self, slot: u32) -> Arc<tokio::sync::Mutex<Purpose>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(table.entry(slot).or_default())
    }

    fn device_directory(&self, slot: u32) -> Result<PathBuf> {
        let directory = self.platform.join(format!("virtio-mmio.{slot}"));
        if directory.is_dir() {
            Ok(directory)
        } else {
            Err(Error::invalid(format!("slot: this machine has no slot {slot}")))
        }
    }

    /// Name of the device that the driver has made for a slot: a block device or interface, else `virtioN`.
    fn device_name(&self, slot: u32) -> Result<Option<String>> {
        let directory = self.device_directory(slot)?;
        let Some(virtio) = child(&directory, |name| {
            name.strip_prefix("virtio").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        }) else {
            return Ok(None);
        };
        for class in ["block", "net"] {
            if directory.join(&virtio).join(class).is_dir() {
                // Between the two the driver is still at work.
                return Ok(child(&directory.join(&virtio).join(class), |_| true));
            }
        }
        Ok(Some(virtio))
    }

    /// The block device of a plugged slot.
    fn block_device(&self, slot: u32) -> Result<PathBuf> {
        let name = self
            .device_name(slot)?
            .ok_or_else(|| Error::precondition(format!("slot {slot} has no device; plug it first")))?;
        let path = Path::new(paths::DISKS).join(&name);
        if Path::new("/sys/class/block").join(&name).exists() {
            Ok(path)
        } else {
            Err(Error::precondition(format!("the device {name} in slot {slot} is not a block device")))
        }
    }

    /// Major and minor number of the block device in a slot.
    pub async fn block_numbers(&self, slot: u32) -> Result<(u32, u32)> {
        let lock = self.slot(slot);
        let _held = lock.lock().await;
        let device = self.block_device(slot)?;
        let number = rustix::fs::stat(&device).on("stat", device.display())?.st_rdev;
        Ok((rustix::fs::major(number), rustix::fs::minor(number)))
    }

    /// The network interface of a plugged slot, as the kernel calls it now.
    pub async fn interface(&self, slot: u32) -> Result<String> {
        let lock = self.slot(slot);
        let _held = lock.lock().await;
        let name = self
            .device_name(slot)?
            .ok_or_else(|| Error::precondition(format!("slot {slot} has no device; plug it first")))?;
        if Path::new("/sys/class/net").join(&name).exists() {
            Ok(name)
        } else {
            Err(Error::precondition(format!("the device {name} in slot {slot} is not a network interface")))
        }
    }

    /// Binds the driver and waits until the device can be used. A device that is bound already is only named.
    pub async fn plug(&self, slot: u32) -> Result<String> {
        let lock = self.slot(slot);
        let _held = lock.lock().await;
        let directory = self.device_directory(slot)?;
        if !directory.join("driver").exists() {
            let (bind, name) = (self.driver.join("bind"), format!("virtio-mmio.{slot}"));
            match blocking(move || write(&bind, &name)).await? {
                Ok(()) => {}
                Err(Errno::NODEV) => {
                    return Err(Error::precondition(format!("slot {slot} is empty: the host has put no device there")));
                }
                Err(errno) => {
                    return Err(errno).on("write", format_args!("{}/bind virtio-mmio.{slot}", self.driver.display()));
                }
            }
        }
        for _ in 0..STEPS {
            if let Some(name) = self.device_name(slot)?
                && usable(&name)
            {
                return Ok(name);
            }
            tokio::time::sleep(STEP).await;
        }
        Err(Error::Internal(format!("the device in slot {slot} did not become usable; does the host answer it?")))
    }

    /// Unbinds the driver. Nothing to do when it is not bound.
    pub async fn unplug(&self, slot: u32) -> Result<()> {
        let lock = self.slot(slot);
        let held = lock.lock().await;
        match &*held {
            Purpose::None => {}
            Purpose::Image { users } => {
                return Err(Error::precondition(format!("slot {slot} is the image of {users} container(s)")));
            }
            Purpose::Exclusive(what) => return Err(Error::precondition(format!("slot {slot} is mounted as {what}"))),
        }
        let directory = self.device_directory(slot)?;
        if !directory.join("driver").exists() {
            return Ok(());
        }
        let disk = self.block_device(slot).ok();
        if let Some(disk) = &disk {
            wait_until_unclaimed(slot, disk).await?;
        }
        let (unbind, name) = (self.driver.join("unbind"), format!("virtio-mmio.{slot}"));
        blocking(move || write(&unbind, &name))
            .await?
            .on("write", format_args!("{}/unbind virtio-mmio.{slot}", self.driver.display()))?;
        if let Some(disk) = disk {
            // The next device of that name is another one.
            let _ = std::fs::remove_file(disk);
        }
        Ok(())
    }

    /// Mounts an image, if it is not yet, and counts a user of it.
    pub async fn acquire_image(&self, slot: u32) -> Result<PathBuf> {
        let lock = self.slot(slot);
        let mut held = lock.lock().await;
        let target = paths::image(slot);
        let users = match &*held {
            Purpose::Image { users } => users.saturating_add(1),
            Purpose::None => {
                let device = self.block_device(slot)?;
                mount_device(device, target.clone(), "erofs", MountFlags::RDONLY | MountFlags::NODEV, c"").await?;
                1
            }
            Purpose::Exclusive(what) => return Err(Error::precondition(format!("slot {slot} is in use as {what}"))),
        };
        *held = Purpose::Image { users };
        Ok(target)
    }

    /// Takes a user of an image away; the last one unmounts it.
    pub async fn release_image(&self, slot: u32) -> Result<()> {
        let lock = self.slot(slot);
        let mut held = lock.lock().await;
        if let Purpose::Image { users } = &*held {
            let left = users.saturating_sub(1);
            if left == 0 {
                unmount(paths::image(slot)).await?;
                *held = Purpose::None;
            } else {
                *held = Purpose::Image { users: left };
            }
        }
        Ok(())
    }

    /// Mounts a slot's block device for one purpose alone.
    pub async fn mount_exclusive(
        &self,
        slot: u32,
        what: String,
        target: PathBuf,
        fs_type: &'static str,
        flags: MountFlags,
        data: &'static CStr,
    ) -> Result<()> {
        self.mount_alone(slot, what, || self.block_device(slot), target, fs_type, flags, data).await
    }

    /// Mounts the file system of a slot's virtio-fs device, by its tag.
    pub async fn mount_shared(&self, slot: u32, tag: String, target: PathBuf, flags: MountFlags) -> Result<()> {
        let by_tag = || match self.device_name(slot)? {
            Some(_) => Ok(PathBuf::from(tag)),
            None => Err(Error::precondition(format!("slot {slot} has no device; plug it first"))),
        };
        self.mount_alone(slot, "the host's trees".to_owned(), by_tag, target, "virtiofs", flags, c"").await
    }

    #[expect(clippy::too_many_arguments, reason = "those of mount(2), and the slot's")]
    async fn mount_alone(
        &self,
        slot: u32,
        what: String,
        source: impl FnOnce() -> Result<PathBuf>,
        target: PathBuf,
        fs_type: &'static str,
        flags: MountFlags,
        data: &'static CStr,
    ) -> Result<()> {
        let lock = self.slot(slot);
        let mut held = lock.lock().await;
        if *held != Purpose::None {
            return Err(Error::precondition(format!("slot {slot} is in use already")));
        }
        mount_device(source()?, target, fs_type, flags, data).await?;
        *held = Purpose::Exclusive(what);
        Ok(())
    }

    /// Undoes [`Slots::mount_exclusive`] and [`Slots::mount_shared`].
    pub async fn unmount_exclusive(&self, slot: u32, target: PathBuf) -> Result<()> {
        let lock = self.slot(slot);
        let mut held = lock.lock().await;
        unmount(target).await?;
        *held = Purpose::None;
        Ok(())
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::new()
    }
}

/// The first entry of `directory` whose name `wanted` accepts.
fn child(directory: &Path, wanted: impl Fn(&str) -> bool) -> Option<String> {
    std::fs::read_dir(directory)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| wanted(name))
}

fn write(path: &Path, text: &str) -> rustix::io::Result<()> {
    let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(fd, text.as_bytes()).map(drop)
}

/// Whether a device of that name can be opened and has a size, if it is a block device.
fn usable(name: &str) -> bool {
    let block = Path::new("/sys/class/block").join(name);
    if !block.exists() {
        return true;
    }
    let sized = std::fs::read_to_string(block.join("size")).is_ok_and(|size| size.trim() != "0");
    sized && take_node(name, &block).is_ok()
}

/// Moves a disk's node out of devtmpfs, of which a privileged container can mount an instance: whoever has a node can
/// mount what is mounted from it already, without ever opening the device.
fn take_node(name: &str, block: &Path) -> Result<()> {
    let node = Path::new(paths::DISKS).join(name);
    match std::fs::remove_file(Path::new("/dev").join(name)) {
        // One that is left from an earlier device may have other numbers.
        Ok(()) => drop(std::fs::remove_file(&node)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && node.exists() => {}
        // The kernel is about to make it.
        Err(error) => return Err(error).on("unlink", format_args!("/dev/{name}")),
    }
    if !node.exists() {
        let numbers = std::fs::read_to_string(block.join("dev")).on("read", block.display())?;
        let numbers = numbers.trim().split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (major, minor) = numbers.ok_or_else(|| Error::Internal(format!("{} has no numbers", block.display())))?;
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, &node, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device)
            .on("mknod", node.display())?;
    }
    std::fs::File::open(&node).on("open", node.display()).map(drop)
}

/// An exclusive open fails while any mount namespace has the device mounted. A namespace that is just being taken down
/// gets a moment.
async fn wait_until_unclaimed(slot: u32, device: &Path) -> Result<()> {
    for _ in 0..20 {
        match rustix::fs::open(device, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::BUSY) => tokio::time::sleep(STEP).await,
            // Whatever else is wrong with the device, the driver can let go of it.
            _ => return Ok(()),
        }
    }
    Err(Error::precondition(format!("{} in slot {slot} is still mounted", device.display())))
}

/// Runs what may wait for a device outside of the event loop.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(format!("worker thread: {error}")))
}

async fn mount_device(
    device: PathBuf,
    target: PathBuf,
    fs_type: &'static str,
    flags: MountFlags,
    data: &'static CStr,
) -> Result<()> {
    blocking(move || {
        std::fs::create_dir_all(&target).on("mkdir", target.display())?;
        rustix::mount::mount(&device, &target, fs_type, flags, data)
            .on("mount", format_args!("{} ({fs_type}) on {}", device.display(), target.display()))
    })
    .await?
}

/// Unmounts `target` and removes the directory. Not being mounted is success.
pub(super) async fn unmount(target: PathBuf) -> Result<()> {
    blocking(move || {
        match rustix::mount::unmount(&target, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(errno).on("umount2", target.display()),
        }
        crate::fs::remove::remove_empty(&target)
    })
    .await?
}

/// Waits until everything written to the file system at `path` is on its device.
pub(super) fn sync(path: &Path) -> Result<()> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .on("open", path.display())?;
    rustix::fs::syncfs(fd.as_fd()).on("syncfs", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake() -> (tempfile::TempDir, Slots) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("virtio-mmio.3/virtio0/net/eth0")).unwrap();
        std::fs::create_dir_all(dir.path().join("virtio-mmio.3/driver")).unwrap();
        std::fs::create_dir_all(dir.path().join("virtio-mmio.4")).unwrap();
        std::fs::create_dir_all(dir.path().join("driver")).unwrap();
        let slots = Slots::at(dir.path(), &dir.path().join("driver"));
        (dir, slots)
    }

    #[tokio::test]
    async fn a_bound_device_is_only_named() {
        let (_dir, slots) = fake();
        assert_eq!(slots.plug(3).await.unwrap(), "eth0");
    }

    #[tokio::test]
    async fn a_slot_that_does_not_exist_is_refused() {
        let (_dir, slots) = fake();
        assert!(matches!(slots.plug(77).await, Err(Error::InvalidArgument(_))));
        assert!(matches!(slots.unplug(77).await, Err(Error::InvalidArgument(_))));
    }

    #[tokio::test]
    async fn what_is_not_plugged_cannot_be_an_image() {
        let (_dir, slots) = fake();
        assert!(matches!(slots.acquire_image(4).await, Err(Error::FailedPrecondition(_))));
        assert!(matches!(slots.acquire_image(3).await, Err(Error::FailedPrecondition(_))));
    }

    #[tokio::test]
    async fn unbinding_writes_the_device_name() {
        let (dir, slots) = fake();
        std::fs::write(dir.path().join("driver/unbind"), "").unwrap();
        slots.unplug(3).await.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("driver/unbind")).unwrap(), "virtio-mmio.3");
        slots.unplug(4).await.unwrap();
    }
}
