//! Mounts built detached (fsopen, open_tree) and attached by descriptor (move_mount).
//!
//! A detached mount belongs to nobody's tree: dropping its descriptor unmounts it, so a failure half-way leaves
//! nothing behind, and attaching it needs no path that could be redirected.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::error::{Context, Error, Result};
use crate::sys::{MountAttr, mount_setattr};

/// A mount that is attached nowhere yet.
pub type Detached = OwnedFd;

const MS_REC: u64 = libc::MS_REC;
const PROPAGATION: u64 = libc::MS_SHARED | libc::MS_PRIVATE | libc::MS_SLAVE | libc::MS_UNBINDABLE;

/// What the bits of mount(2) in a request mean for one mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// `MOUNT_ATTR_*`.
    pub attributes: u64,
    /// One of `MS_SHARED`, `MS_PRIVATE`, `MS_SLAVE`, `MS_UNBINDABLE`, or 0: left as it is (private).
    pub propagation: u64,
    /// Whether attributes and propagation hold for mounts below, too.
    pub recursive: bool,
}

impl Flags {
    /// Translates `MS_*` bits.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` with the bits that mean nothing for a container's mount.
    pub fn from_ms(destination: &str, bits: u64) -> Result<Self> {
        const ATTRIBUTES: [(u64, MountAttrFlags); 8] = [
            (libc::MS_RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
            (libc::MS_NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
            (libc::MS_NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
            (libc::MS_NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
            (libc::MS_NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
            (256 /* MS_NOSYMFOLLOW */, MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
            (libc::MS_NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
            (libc::MS_STRICTATIME, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
        ];
        // MS_BIND says how the mount is made, which its kind says here; relatime is the default.
        let mut left = bits & !(libc::MS_BIND | MS_REC | libc::MS_RELATIME | libc::MS_SILENT);
        let mut attributes = 0_u64;
        for (bit, attribute) in ATTRIBUTES {
            if left & bit != 0 {
                attributes |= u64::from(attribute.bits());
                left &= !bit;
            }
        }
        let propagation = left & PROPAGATION;
        left &= !PROPAGATION;
        if left != 0 || propagation.count_ones() > 1 {
            return Err(Error::invalid(format!(
                "mounts.flags of {destination}: bits {:#x} are not supported",
                left | propagation
            )));
        }
        Ok(Self { attributes, propagation, recursive: bits & MS_REC != 0 })
    }

    /// Whether the mount is read-only.
    #[must_use]
    pub fn read_only(self) -> bool {
        self.attributes & u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()) != 0
    }

    /// Without read-only: for a mount in which things are still to be made.
    #[must_use]
    pub fn writable(self) -> Self {
        Self { attributes: self.attributes & !u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()), ..self }
    }

    /// Sets them on a mount.
    pub fn apply(self, mount: impl AsFd) -> rustix::io::Result<()> {
        let atime = u64::from(MountAttrFlags::MOUNT_ATTR__ATIME.bits());
        // The access-time mode is one field: it must be cleared as a whole before it is set.
        let clear = if self.attributes & atime == 0 { 0 } else { atime };
        let attributes = MountAttr { set: self.attributes, clear, propagation: self.propagation, userns_fd: 0 };
        if attributes.set == 0 && attributes.propagation == 0 {
            return Ok(());
        }
        mount_setattr(mount, &attributes, self.recursive)
    }
}

/// Makes a mount read-only.
pub fn make_read_only(mount: impl AsFd, recursive: bool) -> rustix::io::Result<()> {
    let set = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    mount_setattr(mount, &MountAttr { set, ..MountAttr::default() }, recursive)
}

/// Lets a detached mount show owners by the maps of a user namespace: as root's what is root's in the file system.
///
/// # Errors
///
/// `INVAL` when the file system cannot, or the mount has maps already.
pub fn map_ids(mount: impl AsFd, user_namespace: impl AsFd) -> rustix::io::Result<()> {
    let userns_fd = u64::try_from(user_namespace.as_fd().as_raw_fd()).map_err(|_| Errno::BADF)?;
    let set = u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits());
    mount_setattr(mount, &MountAttr { set, userns_fd, ..MountAttr::default() }, false)
}

/// A new instance of a kernel file system, configured by `(key, value)` pairs; a pair without value is a flag.
pub fn new_file_system<'a>(
    fs_type: &str,
    options: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    attributes: u64,
) -> Result<Detached> {
    let context = fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC).on("fsopen", fs_type)?;
    for (key, value) in options {
        match value {
            Some(value) => {
                fsconfig_set_string(&context, key, value).on("fsconfig", format_args!("{fs_type} {key}={value}"))
            }
            None => fsconfig_set_flag(&context, key).on("fsconfig", format_args!("{fs_type} {key}")),
        }?;
    }
    fsconfig_create(&context).on("mount", fs_type)?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).on("fsmount", fs_type)
}

/// Splits mount(2)'s comma-separated data.
pub fn options(data: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    data.split(',').filter(|option| !option.is_empty()).map(|option| match option.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (option, None),
    })
}

/// A detached copy of the mount tree at an open file or directory.
pub fn clone_at(at: impl AsFd, recursive: bool) -> rustix::io::Result<Detached> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(at, "", flags)
}

/// A detached copy of the mount at one of the agent's own paths.
pub fn clone_path(path: &Path) -> Result<Detached> {
    open_tree(rustix::fs::CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .on("open_tree", path.display())
}

/// Attaches a detached mount over an open file or directory.
pub fn attach(mount: impl AsFd, at: impl AsFd) -> rustix::io::Result<()> {
    move_mount(mount, "", at, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bits_become_attributes() {
        let flags = Flags::from_ms("/x", libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_BIND | libc::MS_REC).unwrap();
        assert!(flags.read_only() && flags.recursive);
        assert_eq!(flags.attributes, 0b11);
        assert!(!flags.writable().read_only());
        assert_eq!(flags.propagation, 0);
    }

    #[test]
    fn unknown_or_contradicting_bits_are_refused() {
        for bad in [1 << 40, libc::MS_REMOUNT, libc::MS_MOVE, libc::MS_SHARED | libc::MS_PRIVATE] {
            assert!(Flags::from_ms("/x", bad).is_err(), "{bad:#x}");
        }
    }

    #[test]
    fn mount_data_is_split_at_commas() {
        let split: Vec<_> = options("mode=755,,size=65536k,newinstance").collect();
        assert_eq!(split, [("mode", Some("755")), ("size", Some("65536k")), ("newinstance", None)]);
    }
}
