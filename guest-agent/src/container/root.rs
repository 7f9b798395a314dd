//! A container's root file system: overlayfs of images with a writable layer.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use husk_agent_api::v1;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::UnmountFlags;

use super::held::Held;
use crate::agent::Agent;
use crate::error::{Context, Error, Result};
use crate::fs::mount::{Detached, attach, clone_path, make_read_only, map_ids, new_file_system};
use crate::fs::remove::remove_tree;
use crate::paths;
use crate::pod::quota;
use crate::pod::users::UserNamespace;

/// The root as a detached mount: overlayfs of the images with a writable layer on the scratch disk. A read-only root
/// has the layer too where there is a scratch disk: mount points are made in it before the mount becomes read-only.
pub(super) async fn make(
    agent: &Agent,
    id: &str,
    root_fs: Option<&v1::RootFs>,
    users: Option<&UserNamespace>,
    held: &mut Held,
) -> Result<Detached> {
    let root_fs = root_fs.ok_or_else(|| Error::invalid("root_fs: missing"))?;
    let mut images = Vec::new();
    for slot in &root_fs.lower_slots {
        images.push(held.image(agent, *slot).await?);
    }
    let layer = if agent.volumes.has_scratch() {
        held.layer();
        Some(writable_layer(id, images.first(), users)?)
    } else if root_fs.read_only {
        None
    } else {
        return Err(Error::precondition("a writable root needs the pod's scratch disk; mount it first"));
    };
    if let (None, [image]) = (&layer, images.as_slice()) {
        let mount = clone_path(image)?;
        if let Some(users) = users {
            map_ids(&mount, &users.fd).on("mount_setattr", image.display())?;
        }
        make_read_only(&mount, false).on("mount_setattr", image.display())?;
        return Ok(mount);
    }
    match users {
        None => overlay(&images, layer.as_deref()),
        Some(users) => {
            let mapped = MappedImages::mount(id, &images, &users.fd)?;
            overlay(&mapped.images, layer.as_deref())
        }
    }
}

/// Of images, topmost first, and the directory that holds `upper` and `work`.
fn overlay(images: &[PathBuf], layer: Option<&Path>) -> Result<Detached> {
    let lower: Vec<String> = images.iter().map(|path| path.display().to_string()).collect();
    let mut options: Vec<(&str, Option<&str>)> = lower.iter().map(|path| ("lowerdir+", Some(path.as_str()))).collect();
    let writable = layer.map(|layer| [UPPER, WORK].map(|name| layer.join(name).display().to_string()));
    if let Some([upper, work]) = &writable {
        options.push(("upperdir", Some(upper)));
        options.push(("workdir", Some(work)));
        // The layer dies with the pod: no need to wait for the disk on fsync.
        options.push(("volatile", None));
    }
    // Device nodes on it open what the container's device program allows, as everywhere.
    new_file_system("overlay", options, 0)
}

const UPPER: &str = "upper";
const WORK: &str = "work";

/// A directory with `upper` and `work`; the root of the former has owner and mode of the topmost image's root. Owners in
/// it are the guest's: overlayfs writes there as the guest's root, which a mount with mapped ids would not let it.
fn writable_layer(id: &str, image: Option<&PathBuf>, users: Option<&UserNamespace>) -> Result<PathBuf> {
    let directory = paths::scratch_container(id);
    // What an earlier container of that name may have left.
    remove_tree(&directory)?;
    let (upper, work) = (directory.join(UPPER), directory.join(WORK));
    rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o755)).on("mkdir", directory.display())?;
    // Before anything is in it, for only what is made later belongs to the project.
    quota::count(&directory)?;
    for path in [&upper, &work] {
        rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).on("mkdir", path.display())?;
    }
    if let Some(image) = image {
        let stat = rustix::fs::stat(image).on("stat", image.display())?;
        let (uid, gid) = match users {
            Some(users) => (users.uid(stat.st_uid)?, users.gid(stat.st_gid)?),
            None => (stat.st_uid, stat.st_gid),
        };
        rustix::fs::chown(&upper, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).on("chown", upper.display())?;
        rustix::fs::chmod(&upper, Mode::from_raw_mode(stat.st_mode & 0o7777)).on("chmod", upper.display())?;
    }
    Ok(directory)
}

/// Images mounted once more, with the ids of a user namespace. overlayfs has no such mounts itself; it keeps those of its
/// layers, and takes them by paths alone, so for that time they must have some. They go when this does.
#[derive(Debug)]
struct MappedImages {
    directory: PathBuf,
    images: Vec<PathBuf>,
}

impl MappedImages {
    fn mount(id: &str, images: &[PathBuf], users: &OwnedFd) -> Result<Self> {
        let directory = Path::new(paths::LAYERS).join(id);
        std::fs::create_dir(&directory).on("mkdir", directory.display())?;
        let mut mapped = Self { directory, images: Vec::new() };
        for (number, image) in images.iter().enumerate() {
            let path = mapped.directory.join(number.to_string());
            std::fs::create_dir(&path).on("mkdir", path.display())?;
            let mount = clone_path(image)?;
            map_ids(&mount, users).on("mount_setattr", image.display())?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let at = rustix::fs::open(&path, flags, Mode::empty()).on("open", path.display())?;
            attach(&mount, &at).on("move_mount", path.display())?;
            mapped.images.push(path);
        }
        Ok(mapped)
    }
}

impl Drop for MappedImages {
    fn drop(&mut self) {
        for path in &self.images {
            if let Err(errno) = rustix::mount::unmount(path, UnmountFlags::DETACH) {
                crate::warning!("umount2 {}: {errno}", path.display());
            }
        }
        if let Err(error) = remove_tree(&self.directory) {
            crate::warning!("{}: {error}", self.directory.display());
        }
    }
}
