//! `mounts`: what a container sees below its root.
//!
//! Kernel file systems are made in the guest. What the pod gives has types of its own: `husk.shm`, `husk.pod-file`,
//! `husk.volume` and `husk.disk`. Directories of the node would need virtio-fs, which this version does not have, so
//! bind mounts are refused.

use std::path::PathBuf;

use husk_agent_api::is_valid_id;
use oci_spec::runtime::Mount;

use super::{SpecError, container_path, path_text, refuse_members};

/// Names that the engine gives to volumes of its own; see `volumes.rs`.
pub(crate) const RESERVED_VOLUMES: &str = "husk.";
/// The kernel passes one page of mount data.
const MAX_DATA: usize = 4095;

/// A mount whose volume or disk is still to be provided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedMount {
    pub(crate) destination: String,
    /// MS_* bits.
    pub(crate) flags: u64,
    pub(crate) source: MountSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountSource {
    Kernel { fs_type: String, data: String },
    Shm,
    PodFile { name: String },
    Volume { volume: VolumeWanted, sub_path: String },
    Disk { image: PathBuf, sub_path: String },
}

/// A volume of the pod, made at its first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeWanted {
    pub(crate) name: String,
    /// `None` when this mount does not say: any existing volume of that name will do.
    pub(crate) medium: Option<Medium>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// A directory on the scratch disk.
    Disk,
    /// A tmpfs; 0 = the kernel's default size.
    Memory { size_bytes: u64 },
}

impl PlannedMount {
    pub(crate) fn read_only(&self) -> bool {
        self.flags & libc::MS_RDONLY != 0
    }
}

pub(crate) fn mounts(mounts: &[Mount]) -> Result<Vec<PlannedMount>, SpecError> {
    mounts.iter().enumerate().map(|(index, mount)| planned(&format!("mounts[{index}]"), mount)).collect()
}

fn planned(field: &str, mount: &Mount) -> Result<PlannedMount, SpecError> {
    const ID_MAPPED: &str = "id-mapped mounts are not made in the guest yet";
    refuse_members(&format!("{field}.uidMappings"), mount.uid_mappings().as_ref(), ID_MAPPED)?;
    refuse_members(&format!("{field}.gidMappings"), mount.gid_mappings().as_ref(), ID_MAPPED)?;
    let field_destination = format!("{field}.destination");
    let destination = container_path(&field_destination, path_text(&field_destination, mount.destination())?)?;
    let options = Options::parse(field, mount.options().as_deref().unwrap_or_default())?;
    let fs_type = mount.typ().as_deref().unwrap_or("none");
    let is_ours = fs_type.starts_with("husk.");
    if !is_ours && (options.bind || matches!(fs_type, "bind" | "none" | "")) {
        let source = mount.source().as_ref().map(|source| source.display().to_string()).unwrap_or_default();
        let why = "host directories need virtio-fs, which this version does not have";
        return Err(SpecError::unsupported(format!("{field}.source"), source, why));
    }
    let flags = options.flags;
    let source = source(field, fs_type, mount, options)?;
    Ok(PlannedMount { destination, flags, source })
}

fn source(field: &str, fs_type: &str, mount: &Mount, mut options: Options) -> Result<MountSource, SpecError> {
    let field_source = format!("{field}.source");
    let text = match mount.source() {
        Some(source) => path_text(&field_source, source)?,
        None => "",
    };
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
            options.finish(field)?;
            if !is_valid_id(text) || text.starts_with(RESERVED_VOLUMES) {
                let why = "a volume's name has 1 to 76 letters, digits, dots, underscores and hyphens, begins with a \
                           letter or digit, and not with \"husk.\"";
                return Err(SpecError::invalid(field_source, text, why));
            }
            Ok(MountSource::Volume { volume: VolumeWanted { name: text.into(), medium }, sub_path })
        }
        "husk.disk" => {
            let sub_path = sub_path(field, options.take("subpath"))?;
            options.finish(field)?;
            if !text.starts_with('/') || text.contains('\0') {
                return Err(SpecError::invalid(field_source, text, "it is the absolute path of a raw ext4 image"));
            }
            Ok(MountSource::Disk { image: text.into(), sub_path })
        }
        other => {
            let why = "types are proc, sysfs, tmpfs, devpts, mqueue, cgroup and husk.shm, husk.pod-file, husk.volume, \
                       husk.disk";
            Err(SpecError::unsupported(format!("{field}.type"), other, why))
        }
    }
}

fn medium(field: &str, medium: Option<String>, size: Option<String>) -> Result<Option<Medium>, SpecError> {
    let field = format!("{field}.options");
    match (medium.as_deref(), size) {
        (None, None) => Ok(None),
        (Some("memory"), size) => {
            let size_bytes = match size {
                None => 0,
                Some(size) => match size.parse() {
                    Ok(bytes @ 1..) => bytes,
                    _ => return Err(SpecError::invalid(field, format!("size={size}"), "it is a number of bytes")),
                },
            };
            Ok(Some(Medium::Memory { size_bytes }))
        }
        (Some("disk"), None) => Ok(Some(Medium::Disk)),
        (Some("disk") | None, Some(size)) => {
            let why = "a size can be enforced for medium=memory only; volumes on disk share the scratch disk's limit";
            Err(SpecError::unsupported(field, format!("size={size}"), why))
        }
        (Some(other), _) => Err(SpecError::invalid(field, format!("medium={other}"), "it is disk or memory")),
    }
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

/// Mount options, sorted into flags and the rest.
#[derive(Debug, Default)]
struct Options {
    flags: u64,
    bind: bool,
    rest: Vec<String>,
}

impl Options {
    /// The table is runc's (`libcontainer/specconv`).
    fn parse(field: &str, options: &[String]) -> Result<Self, SpecError> {
        let mut parsed = Self::default();
        for option in options {
            let (clear, set) = match option.as_str() {
                "defaults" | "private" | "rprivate" | "loud" | "silent" => (0, 0),
                "ro" => (0, libc::MS_RDONLY),
                "rw" => (libc::MS_RDONLY, 0),
                "nosuid" => (0, libc::MS_NOSUID),
                "suid" => (libc::MS_NOSUID, 0),
                "nodev" => (0, libc::MS_NODEV),
                "dev" => (libc::MS_NODEV, 0),
                "noexec" => (0, libc::MS_NOEXEC),
                "exec" => (libc::MS_NOEXEC, 0),
                "sync" => (0, libc::MS_SYNCHRONOUS),
                "async" => (libc::MS_SYNCHRONOUS, 0),
                "dirsync" => (0, libc::MS_DIRSYNC),
                "noatime" => (0, libc::MS_NOATIME),
                "atime" => (libc::MS_NOATIME, 0),
                "nodiratime" => (0, libc::MS_NODIRATIME),
                "diratime" => (libc::MS_NODIRATIME, 0),
                "relatime" => (0, libc::MS_RELATIME),
                "norelatime" => (libc::MS_RELATIME, 0),
                "strictatime" => (0, libc::MS_STRICTATIME),
                "nostrictatime" => (libc::MS_STRICTATIME, 0),
                "bind" | "rbind" => {
                    parsed.bind = true;
                    (0, 0)
                }
                "shared" | "rshared" | "slave" | "rslave" | "unbindable" | "runbindable" | "remount" | "tmpcopyup"
                | "idmap" | "ridmap" | "rro" | "mand" => {
                    let why = "this mount option is not supported in the guest";
                    return Err(SpecError::unsupported(format!("{field}.options"), option, why));
                }
                other => {
                    parsed.rest.push(other.to_owned());
                    (0, 0)
                }
            };
            parsed.flags = (parsed.flags & !clear) | set;
        }
        Ok(parsed)
    }

    /// Takes `NAME=value` out of the rest; the last one counts.
    fn take(&mut self, name: &str) -> Option<String> {
        let mut value = None;
        self.rest.retain(|option| match option.split_once('=') {
            Some((key, text)) if key == name => {
                value = Some(text.to_owned());
                false
            }
            _ => true,
        });
        value
    }

    /// Nothing may be left that nobody understood.
    fn finish(self, field: &str) -> Result<(), SpecError> {
        if self.bind {
            return Err(SpecError::invalid(format!("{field}.options"), "bind", "this type of mount is no bind mount"));
        }
        match self.rest.first() {
            Some(option) => {
                Err(SpecError::unsupported(format!("{field}.options"), option, "this type of mount does not know it"))
            }
            None => Ok(()),
        }
    }

    /// What is left is the file system's own, checked by the guest's kernel.
    fn into_data(self, field: &str) -> Result<String, SpecError> {
        let data = self.rest.join(",");
        if data.len() > MAX_DATA || data.contains('\0') {
            return Err(SpecError::invalid(format!("{field}.options"), data, "at most 4095 bytes without NUL"));
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(mount: Value) -> Result<PlannedMount, SpecError> {
        let list = mounts(&[serde_json::from_value(mount).unwrap()])?;
        Ok(list.into_iter().next().unwrap())
    }

    fn of_type(typ: &str, source: &str, options: &[&str]) -> Result<PlannedMount, SpecError> {
        parse(json!({"destination": "/x", "type": typ, "source": source, "options": options}))
    }

    #[test]
    fn kernel_file_systems_keep_flags_and_data() {
        let mount = of_type("tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]).unwrap();
        assert_eq!(mount.flags, libc::MS_NOSUID | libc::MS_STRICTATIME);
        assert_eq!(mount.source, MountSource::Kernel { fs_type: "tmpfs".into(), data: "mode=755,size=65536k".into() });
    }

    #[test]
    fn either_cgroup_version_means_version_two() {
        let mount = of_type("cgroup", "cgroup", &["ro", "nosuid"]).unwrap();
        assert!(mount.read_only());
        assert_eq!(mount.source, MountSource::Kernel { fs_type: "cgroup2".into(), data: String::new() });
    }

    #[test]
    fn later_options_win() {
        assert!(!of_type("tmpfs", "", &["ro", "rw"]).unwrap().read_only());
        assert_eq!(of_type("tmpfs", "", &["nosuid", "suid"]).unwrap().flags, 0);
    }

    #[test]
    fn host_directories_are_refused_with_the_reason() {
        for mount in [
            json!({"destination": "/x", "type": "bind", "source": "/etc", "options": ["rbind", "ro"]}),
            json!({"destination": "/x", "source": "/etc", "options": ["bind"]}),
            json!({"destination": "/x", "type": "none", "source": "/etc", "options": ["rbind"]}),
            json!({"destination": "/x", "type": "tmpfs", "source": "/etc", "options": ["bind"]}),
        ] {
            let error = parse(mount).unwrap_err();
            assert_eq!(error.field(), "mounts[0].source");
            assert!(error.to_string().contains("virtio-fs"), "{error}");
        }
    }

    #[test]
    fn volumes_carry_medium_size_and_sub_path() {
        let mount = of_type("husk.volume", "cache", &["rw", "medium=memory", "size=1048576", "subpath=a/b"]).unwrap();
        let volume = VolumeWanted { name: "cache".into(), medium: Some(Medium::Memory { size_bytes: 1_048_576 }) };
        assert_eq!(mount.source, MountSource::Volume { volume, sub_path: "a/b".into() });
        let plain = of_type("husk.volume", "cache", &["ro"]).unwrap();
        assert!(plain.read_only());
        let volume = VolumeWanted { name: "cache".into(), medium: None };
        assert_eq!(plain.source, MountSource::Volume { volume, sub_path: String::new() });
    }

    #[test]
    fn a_size_on_disk_is_refused_rather_than_ignored() {
        assert!(of_type("husk.volume", "v", &["size=5"]).is_err());
        assert!(of_type("husk.volume", "v", &["medium=disk", "size=5"]).is_err());
        assert!(of_type("husk.volume", "v", &["medium=memory", "size=-5"]).is_err());
        assert!(of_type("husk.volume", "v", &["medium=tape"]).is_err());
    }

    #[test]
    fn a_sub_path_stays_below_its_volume() {
        for bad in ["subpath=../x", "subpath=a/../../x", "subpath=/etc", "subpath=a/.."] {
            assert!(of_type("husk.volume", "v", &[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn volume_names_are_ids_and_not_ours() {
        for bad in ["", "../x", "a/b", "husk.disk.1"] {
            assert_eq!(of_type("husk.volume", bad, &[]).unwrap_err().field(), "mounts[0].source");
        }
    }

    #[test]
    fn a_disk_is_an_absolute_path() {
        let mount = of_type("husk.disk", "/var/lib/husk/volumes/db/data.img", &["ro"]).unwrap();
        assert!(mount.read_only());
        assert!(of_type("husk.disk", "data.img", &[]).is_err());
    }

    #[test]
    fn pod_files_are_three() {
        for good in ["hosts", "hostname", "resolv.conf"] {
            of_type("husk.pod-file", good, &["ro"]).unwrap();
        }
        assert!(of_type("husk.pod-file", "shadow", &[]).is_err());
    }

    #[test]
    fn unknown_types_and_options_are_refused() {
        assert_eq!(of_type("nfs", "server:/", &[]).unwrap_err().field(), "mounts[0].type");
        assert_eq!(of_type("husk.shm", "shm", &["size=5"]).unwrap_err().field(), "mounts[0].options");
        assert_eq!(of_type("tmpfs", "", &["rshared"]).unwrap_err().field(), "mounts[0].options");
        assert_eq!(of_type("husk.volume", "v", &["rbind"]).unwrap_err().field(), "mounts[0].options");
    }

    #[test]
    fn destinations_are_absolute() {
        assert_eq!(parse(json!({"destination": "x", "type": "proc"})).unwrap_err().field(), "mounts[0].destination");
    }
}
