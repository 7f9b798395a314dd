//! `mounts`: what a container sees below its root.
//!
//! Kernel file systems are made in the guest. What the pod gives has types of its own: `husk.shm`, `husk.pod-file`,
//! `husk.volume` and `husk.disk`. Bind mounts are directories and files of the host, shared by virtio-fs.

mod options;

use std::path::PathBuf;

use husk_agent_api::{is_valid_id, v1};
use oci_spec::runtime::Mount;

use super::{SpecError, container_path, path_text, users};
use crate::devices::DiskImage;
use options::Options;

/// Names that the engine gives to volumes of its own; see `volumes.rs`.
pub(crate) const RESERVED_VOLUMES: &str = "husk.";
/// The kernel passes one page of mount data.
const MAX_DATA: usize = 4095;

/// A mount whose volume or disk is still to be provided.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedMount {
    pub(crate) destination: String,
    /// MS_* bits.
    pub(crate) flags: u64,
    pub(crate) source: MountSource,
    /// It shows owners by these; only of volumes and what is the host's.
    pub(crate) id_maps: Option<v1::IdMaps>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountSource {
    Kernel { fs_type: String, data: String },
    Shm,
    PodFile { name: String },
    Volume { volume: VolumeWanted, sub_path: String },
    Disk { image: DiskImage, fs_type: DiskFs, sub_path: String },
    Host(HostTree),
}

/// A directory or file of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostTree {
    pub(crate) source: PathBuf,
    /// A path below `source`, made if missing.
    pub(crate) sub_path: String,
    /// With the mounts below it.
    pub(crate) recursive: bool,
    /// Mounts that the host makes below it later are seen, too.
    pub(crate) follows_host: bool,
    /// When it is read-only, the mounts below it are not: they are as the host has them.
    pub(crate) writable_below: bool,
}

/// The file system on a disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFs {
    Ext4,
    /// Always read-only.
    Erofs,
}

impl DiskFs {
    /// As mount(2) calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Erofs => "erofs",
        }
    }
}

/// A volume of the pod, made at its first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeWanted {
    pub(crate) name: String,
    /// `None` when this mount does not say: any existing volume of that name will do.
    pub(crate) medium: Option<Medium>,
    /// The group that owns it.
    pub(crate) gid: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// A directory on the scratch disk; 0 = no limit but the disk's.
    Disk { size_bytes: u64 },
    /// A tmpfs; 0 = the kernel's default size.
    Memory { size_bytes: u64 },
}

impl PlannedMount {
    pub(crate) fn read_only(&self) -> bool {
        self.flags & libc::MS_RDONLY != 0
    }
}

/// `users`: the container's user namespace, whose mappings a mount has that asks for some and says not which.
pub(crate) fn mounts(mounts: &[Mount], users: Option<&v1::IdMaps>) -> Result<Vec<PlannedMount>, SpecError> {
    mounts.iter().enumerate().map(|(index, mount)| planned(&format!("mounts[{index}]"), mount, users)).collect()
}

fn planned(field: &str, mount: &Mount, users: Option<&v1::IdMaps>) -> Result<PlannedMount, SpecError> {
    let field_destination = format!("{field}.destination");
    let destination = container_path(&field_destination, path_text(&field_destination, mount.destination())?)?;
    let options = Options::parse(field, mount.options().as_deref().unwrap_or_default())?;
    let id_maps = id_maps(field, mount, &options, users)?;
    let fs_type = mount.typ().as_deref().unwrap_or("none");
    let is_ours = fs_type.starts_with("husk.");
    if !is_ours && (options.bind.is_some() || matches!(fs_type, "bind" | "none" | "")) {
        let flags = options.flags;
        let tree = host_tree(field, mount, options)?;
        return Ok(PlannedMount { destination, flags, source: MountSource::Host(tree), id_maps });
    }
    let mut flags = options.flags;
    let source = source(field, fs_type, mount, options)?;
    if matches!(source, MountSource::Disk { fs_type: DiskFs::Erofs, .. }) {
        flags |= libc::MS_RDONLY;
    }
    if id_maps.is_some() && !matches!(source, MountSource::Volume { .. } | MountSource::Disk { .. }) {
        let why = "only bind mounts and volumes show owners by mappings of their own";
        return Err(SpecError::unsupported(format!("{field}.uidMappings"), "(set)", why));
    }
    Ok(PlannedMount { destination, flags, source, id_maps })
}

/// A mount's own mappings, or with the option alone those of the container, as runc has it.
fn id_maps(
    field: &str,
    mount: &Mount,
    options: &Options,
    users: Option<&v1::IdMaps>,
) -> Result<Option<v1::IdMaps>, SpecError> {
    let own = users::id_maps(field, mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref())?;
    match (own, users) {
        (Some(own), _) => Ok(Some(own)),
        (None, _) if !options.id_mapped => Ok(None),
        (None, Some(users)) => Ok(Some(users.clone())),
        (None, None) => {
            let why = "there are no mappings: neither has the mount any, nor is there a user namespace";
            Err(SpecError::invalid(format!("{field}.options"), "idmap", why))
        }
    }
}

fn host_tree(field: &str, mount: &Mount, mut options: Options) -> Result<HostTree, SpecError> {
    let source = host_path(field, source_text(field, mount)?, "it is an absolute path of the host")?;
    let sub_path = sub_path(field, options.take("subpath"))?;
    let recursive = options.bind.take().is_none_or(|bind| bind.recursive);
    let follows_host = std::mem::take(&mut options.follows_host);
    if follows_host && !recursive {
        let why = "mounts of the host are followed as a whole: use rbind with rslave";
        return Err(SpecError::unsupported(format!("{field}.options"), "bind,rslave", why));
    }
    let writable_below = options.writable_below && recursive && !follows_host;
    options.finish(field)?;
    Ok(HostTree { source, sub_path, recursive, follows_host, writable_below })
}

fn source(field: &str, fs_type: &str, mount: &Mount, mut options: Options) -> Result<MountSource, SpecError> {
    let field_source = format!("{field}.source");
    let text = source_text(field, mount)?;
    match fs_type {
        "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" | "cgroup" | "cgroup2" => {
            // Engines write "cgroup" for either version; the guest has version 2.
            let fs_type = if fs_type == "cgroup" { "cgroup2" } else { fs_type };
            Ok(MountSource::Kernel { fs_type: fs_type.into(), data: options.into_data(field)? })
        }
        "husk.shm" => {
            options.finish(field)?;
            Ok(MountSource::Shm)
        }
        "husk.pod-file" => {
            options.finish(field)?;
            match text {
                "hosts" | "hostname" | "resolv.conf" => Ok(MountSource::PodFile { name: text.into() }),
                other => {
                    Err(SpecError::invalid(field_source, other, "a pod has the files hosts, hostname, resolv.conf"))
                }
            }
        }
        "husk.volume" => {
            let sub_path = sub_path(field, options.take("subpath"))?;
            let medium = medium(field, options.take("medium"), options.take("size"))?;
            let gid = options.take("gid").map(|gid| group(field, &gid)).transpose()?;
            options.finish(field)?;
            if !is_valid_id(text) || text.starts_with(RESERVED_VOLUMES) {
                let why = "a volume's name has 1 to 76 letters, digits, dots, underscores and hyphens, begins with a \
                           letter or digit, and not with \"husk.\"";
                return Err(SpecError::invalid(field_source, text, why));
            }
            Ok(MountSource::Volume { volume: VolumeWanted { name: text.into(), medium, gid }, sub_path })
        }
        "husk.disk" => {
            let sub_path = sub_path(field, options.take("subpath"))?;
            let fs_type = match options.take("fs").as_deref() {
                None | Some("ext4") => DiskFs::Ext4,
                Some("erofs") => DiskFs::Erofs,
                Some(other) => {
                    let value = format!("fs={other}");
                    return Err(SpecError::invalid(format!("{field}.options"), value, "it is ext4 or erofs"));
                }
            };
            let more = options.take_all("device");
            options.finish(field)?;
            if fs_type != DiskFs::Erofs && !more.is_empty() {
                let why = "only an erofs image goes on in other files";
                return Err(SpecError::invalid(format!("{field}.options"), "device=", why));
            }
            let path = host_path(field, text, "it is the absolute path of a file system image")?;
            let more = more.iter().map(|text| host_path(field, text, "a device is the absolute path of a file"));
            let image = DiskImage { path, more: more.collect::<Result<_, _>>()? };
            Ok(MountSource::Disk { image, fs_type, sub_path })
        }
        other => {
            let why = "types are proc, sysfs, tmpfs, devpts, mqueue, cgroup and husk.shm, husk.pod-file, husk.volume, \
                       husk.disk";
            Err(SpecError::unsupported(format!("{field}.type"), other, why))
        }
    }
}

fn source_text<'m>(field: &str, mount: &'m Mount) -> Result<&'m str, SpecError> {
    mount.source().as_ref().map_or(Ok(""), |source| path_text(&format!("{field}.source"), source))
}

fn host_path(field: &str, text: &str, why: &str) -> Result<PathBuf, SpecError> {
    if text.starts_with('/') && !text.contains('\0') {
        Ok(text.into())
    } else {
        Err(SpecError::invalid(format!("{field}.source"), text, why))
    }
}

fn medium(field: &str, medium: Option<String>, size: Option<String>) -> Result<Option<Medium>, SpecError> {
    let field = format!("{field}.options");
    let size_bytes = match size {
        None => 0,
        Some(size) => match size.parse() {
            Ok(bytes @ 1..) => bytes,
            _ => return Err(SpecError::invalid(field, format!("size={size}"), "it is a number of bytes")),
        },
    };
    match medium.as_deref() {
        None if size_bytes == 0 => Ok(None),
        None | Some("disk") => Ok(Some(Medium::Disk { size_bytes })),
        Some("memory") => Ok(Some(Medium::Memory { size_bytes })),
        Some(other) => Err(SpecError::invalid(field, format!("medium={other}"), "it is disk or memory")),
    }
}

fn group(field: &str, text: &str) -> Result<u32, SpecError> {
    // The id of all ones means "leave as it is" to chown(2).
    text.parse().ok().filter(|gid| *gid != u32::MAX).ok_or_else(|| {
        SpecError::invalid(format!("{field}.options"), format!("gid={text}"), "it is the number of a group")
    })
}

/// A relative path that stays below its volume; the agent resolves symbolic links below it as well.
fn sub_path(field: &str, path: Option<String>) -> Result<String, SpecError> {
    let Some(path) = path else { return Ok(String::new()) };
    let stays_below = path.split('/').all(|part| part != "..");
    if path.starts_with('/') || !stays_below || path.contains('\0') || path.len() > MAX_DATA {
        let why = "it is a relative path without \"..\"";
        return Err(SpecError::invalid(format!("{field}.options"), format!("subpath={path}"), why));
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
