//! A container's mount namespace: from the agent's tree to one that holds nothing but the container's own mounts.
//!
//! The agent's tree is left before anything of the container's is looked up; from then on every path is resolved by
//! `fs::resolve` below the new root, and every source is a descriptor or a file system made here.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use husk_agent_api::v1::{self, mount::Kind};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use super::Descriptors;
use crate::error::{Context, Error, Result};
use crate::fs::mount::{Flags, attach, clone_at, clone_path, make_read_only, new_file_system, options};
use crate::fs::resolve::{Links, Missing, file_type, resolve};
use crate::paths::NEW_ROOT;
use crate::sys::{MountAttr, mount_setattr};
use crate::zygote::message::RootSpec;

/// The container's root, and what was opened before the agent's tree was left.
#[derive(Debug)]
pub(super) struct Root {
    /// `O_PATH` descriptor of `/`.
    pub(super) fd: OwnedFd,
    /// Detached binds of the agent's /dev/null, one for each masked path.
    nulls: std::cell::RefCell<Vec<OwnedFd>>,
}

/// File systems that show the pod's own namespaces, which the root of a user namespace may not mount.
pub(super) const OF_THE_POD: [&str; 2] = ["sysfs", "mqueue"];
/// And the one that its root may mount only where another one can be seen.
pub(super) const OF_THE_PROCESS: [&str; 1] = ["proc"];

/// What is made before a process in a user namespace leaves the agent's tree.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Kernel file systems, by their place among the mounts.
    file_systems: BTreeMap<usize, OwnedFd>,
    /// Binds of device nodes; see `devices::make_early`.
    pub(super) devices: Vec<Option<OwnedFd>>,
}

impl Early {
    /// Makes those of the mounts that are kernel file systems of one of `types`.
    pub(super) fn make(&mut self, spec: &RootSpec, types: &[&str]) -> Result<()> {
        for (place, mount) in spec.mounts.iter().enumerate() {
            let Some(Kind::Kernel(kernel)) = &mount.kind else { continue };
            if types.contains(&kernel.fs_type.as_str()) {
                let flags = Flags::from_ms(&mount.destination, mount.flags)?;
                let made = new_file_system(&kernel.fs_type, options(&kernel.data), flags.attributes)
                    .map_err(|e| e.during(format_args!("mount {} on {}", kernel.fs_type, mount.destination)))?;
                self.file_systems.insert(place, made);
            }
        }
        Ok(())
    }
}

/// Opens the root of the namespace that we are in.
pub(super) fn open_own() -> Result<Root> {
    let fd =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).on("open", "/")?;
    Ok(Root { fd, nulls: std::cell::RefCell::default() })
}

/// Makes the root mount our root and lets go of the agent's tree.
pub(super) fn enter(descriptors: &mut Descriptors, spec: &RootSpec) -> Result<Root> {
    use rustix::mount::mount_change;
    let mount = descriptors.root_fs.take().ok_or_else(|| Error::Internal("an init without a root mount".to_owned()))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).on("mount", "/ (private)")?;
    let nulls = spec.masked_paths.iter().map(|_| clone_path(Path::new("/dev/null"))).collect::<Result<Vec<_>>>()?;
    let at = rustix::fs::open(NEW_ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .on("open", NEW_ROOT)?;
    attach(&mount, &at).on("move_mount", NEW_ROOT)?;
    drop((at, mount));
    rustix::process::chdir(NEW_ROOT).on("chdir", NEW_ROOT)?;
    // The old root is stacked over the new one and taken away from there; no directory for it is needed.
    rustix::process::pivot_root(".", ".").on("pivot_root", NEW_ROOT)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).on("umount2", "the agent's tree")?;
    rustix::process::chdir("/").on("chdir", "/")?;
    let root = open_own()?;
    root.nulls.replace(nulls);
    Ok(root)
}

/// Mounts everything, in order; an own /dev first when the request has none.
pub(super) fn mount_all(root: &Root, spec: &RootSpec, detached: Vec<OwnedFd>, early: &mut Early) -> Result<()> {
    if !spec.mounts.iter().any(|mount| Path::new(&mount.destination) == Path::new("/dev")) {
        // Without one, device nodes would lie on the root, where they open nothing.
        let flags = libc::MS_NOSUID | libc::MS_STRICTATIME;
        let kernel = v1::KernelMount { fs_type: "tmpfs".to_owned(), data: "mode=755,size=65536k".to_owned() };
        mount_kernel(root, "/dev", Flags::from_ms("/dev", flags)?, &kernel, None)?;
    }
    let mut detached = detached.into_iter();
    for (place, mount) in spec.mounts.iter().enumerate() {
        let flags = Flags::from_ms(&mount.destination, mount.flags)?;
        match &mount.kind {
            Some(Kind::Kernel(kernel)) => {
                mount_kernel(root, &mount.destination, flags, kernel, early.file_systems.remove(&place))?;
            }
            _ => {
                let source = detached.next().ok_or_else(|| Error::Internal("a mount without source".to_owned()))?;
                mount_bind(root, &mount.destination, flags, &source)?;
            }
        }
    }
    Ok(())
}

fn mount_kernel(
    root: &Root,
    destination: &str,
    flags: Flags,
    kernel: &v1::KernelMount,
    made: Option<OwnedFd>,
) -> Result<()> {
    let what = format!("mount {} on {destination}", kernel.fs_type);
    // What is protected by path under these two must not be led elsewhere by the image (CVE-2023-27561).
    let links = match kernel.fs_type.as_str() {
        "proc" | "sysfs" => Links::Refuse,
        _ => Links::Follow,
    };
    let (at, mode) = mount_point(root, destination, links).map_err(|e| e.during(&what))?;
    // Mount points may have to be made in a read-only tmpfs; it is made read-only at the end.
    let now = if kernel.fs_type == "tmpfs" { flags.writable() } else { flags };
    // A tmpfs has the mode of the directory that it covers, unless it is told another one, as runc makes it.
    let mode = mode.filter(|_| kernel.fs_type == "tmpfs" && options(&kernel.data).all(|(name, _)| name != "mode"));
    let options = options(&kernel.data).chain(mode.as_deref().map(|mode| ("mode", Some(mode))));
    let mount = match made {
        Some(made) => made,
        None => new_file_system(&kernel.fs_type, options, now.attributes).map_err(|e| e.during(&what))?,
    };
    attach(&mount, &at).on("move_mount", destination).map_err(|e| e.during(&what))?;
    if flags.propagation != 0 {
        Flags { attributes: 0, ..flags }.apply(&mount).on("mount_setattr", destination)?;
    }
    Ok(())
}

/// Opens a directory to mount on, with its mode in octal; one that is not there is made, and has none to be kept.
fn mount_point(root: &Root, path: &str, links: Links) -> Result<(OwnedFd, Option<String>)> {
    match resolve(&root.fd, Path::new(path), Missing::Fail, links) {
        Err(Error::System { errno: Errno::NOENT, .. }) => {
            Ok((resolve(&root.fd, Path::new(path), Missing::Directory, links)?, None))
        }
        at => {
            let at = at?;
            let mode = rustix::fs::fstat(&at).on("fstat", path)?.st_mode & 0o7777;
            Ok((at, Some(format!("{mode:o}"))))
        }
    }
}

fn mount_bind(root: &Root, destination: &str, flags: Flags, source: &OwnedFd) -> Result<()> {
    let what = format!("mount on {destination}");
    let missing = match file_type(source).on("fstat", destination)? {
        FileType::Directory => Missing::Directory,
        _ => Missing::File,
    };
    let at = resolve(&root.fd, Path::new(destination), missing, Links::Follow).map_err(|e| e.during(&what))?;
    Flags { propagation: 0, ..flags }.apply(source).on("mount_setattr", destination)?;
    attach(source, &at).on("move_mount", destination).map_err(|e| e.during(&what))?;
    if flags.propagation != 0 {
        Flags { attributes: 0, ..flags }.apply(source).on("mount_setattr", destination)?;
    }
    Ok(())
}

/// Masks and write-protects paths, and makes read-only the tmpfs mounts that were asked for so.
pub(super) fn protect(root: &Root, spec: &RootSpec) -> Result<()> {
    for path in &spec.readonly_paths {
        let Some(at) = existing(root, path)? else { continue };
        let copy = clone_at(&at, true).on("open_tree", path)?;
        make_read_only(&copy, true).on("mount_setattr", path)?;
        attach(&copy, &at).on("move_mount", path)?;
    }
    for path in &spec.masked_paths {
        let null = root.nulls.borrow_mut().pop();
        let Some(at) = existing(root, path)? else { continue };
        let mask = if file_type(&at).on("fstat", path)? == FileType::Directory {
            let read_only = Flags::from_ms(path, libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)?;
            new_file_system("tmpfs", options("nr_inodes=2,nr_blocks=1,mode=755"), read_only.attributes)?
        } else {
            null.ok_or_else(|| Error::Internal("a masked path without its /dev/null".to_owned()))?
        };
        attach(&mask, &at).on("move_mount", path)?;
    }
    for mount in &spec.mounts {
        let Some(Kind::Kernel(kernel)) = &mount.kind else { continue };
        if kernel.fs_type == "tmpfs" && Flags::from_ms(&mount.destination, mount.flags)?.read_only() {
            let at = resolve(&root.fd, Path::new(&mount.destination), Missing::Fail, Links::Follow)?;
            make_read_only(&at, false).on("mount_setattr", &mount.destination)?;
        }
    }
    Ok(())
}

/// Opens a path to be protected; one that does not exist needs no protection.
fn existing(root: &Root, path: &str) -> Result<Option<OwnedFd>> {
    match resolve(&root.fd, Path::new(path), Missing::Fail, Links::Follow) {
        Ok(at) => Ok(Some(at)),
        Err(Error::System { errno: Errno::NOENT | Errno::NOTDIR, .. }) => Ok(None),
        Err(error) => Err(error.during(format_args!("protect {path}"))),
    }
}

/// Last: the root's own propagation, and read-only if asked for.
pub(super) fn finish(root: &Root, spec: &RootSpec) -> Result<()> {
    if spec.propagation != 0 {
        let attributes = MountAttr { propagation: spec.propagation, ..MountAttr::default() };
        mount_setattr(&root.fd, &attributes, true).on("mount_setattr", "/ (propagation)")?;
    }
    if spec.read_only {
        make_read_only(&root.fd, false).on("mount_setattr", "/ (read-only)")?;
    }
    Ok(())
}
