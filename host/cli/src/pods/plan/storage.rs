//! What a plan says of volumes and mounts.

use std::path::PathBuf;

use super::PullPolicy;
use crate::pods::atomic_writer::Payload;

/// A volume of the pod, which its containers may share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumePlan {
    pub(crate) name: String,
    pub(crate) source: VolumeSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VolumeSource {
    /// A directory that dies with the pod (emptyDir).
    Empty {
        medium: Medium,
        /// Bytes that it can hold at most.
        size: Option<u64>,
        /// The pod's fsGroup.
        group: Option<u32>,
    },
    /// A directory, file or socket of the host (hostPath).
    Host(HostPath),
    /// Files that husk writes (configMap, secret, projected, downwardAPI).
    Files {
        payload: Payload,
        /// The pod's fsGroup.
        group: Option<u32>,
    },
    /// The file system of an image, read-only.
    Image(ImageSource),
    /// A persistent volume of `husk volume` (persistentVolumeClaim).
    Named { name: String, read_only: bool },
    /// A block device of the host, for `volumeDevices`.
    Device(PathBuf),
}

/// A block device of the host in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DevicePlan {
    pub(crate) host: PathBuf,
    /// Path in the container, below /dev.
    pub(crate) container: String,
    pub(crate) writable: bool,
}

impl DevicePlan {
    /// Whether a device can stand there: elsewhere the file systems are without devices.
    pub(crate) fn is_place(path: &str) -> bool {
        let below = path.strip_prefix("/dev/").unwrap_or_default();
        !below.is_empty() && !path.contains('\0') && below.split('/').all(|part| !matches!(part, "" | "." | ".."))
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Medium {
    /// The pod's scratch disk.
    #[default]
    Disk,
    Memory,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPath {
    /// Absolute.
    pub(crate) path: PathBuf,
    pub(crate) kind: HostPathKind,
}

/// What must be at the path, and what is made there when nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostPathKind {
    /// Anything; a directory is made.
    Any,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageSource {
    pub(crate) reference: String,
    pub(crate) pull: PullPolicy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountPlan {
    pub(crate) source: MountSource,
    /// Absolute path in the container.
    pub(crate) destination: String,
    /// Only what is at this path below the source: relative, without `..`.
    pub(crate) sub_path: Option<String>,
    pub(crate) options: MountOptions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountSource {
    /// One of the pod's volumes.
    PodVolume {
        name: String,
    },
    /// A persistent volume of `husk volume`.
    NamedVolume {
        name: String,
    },
    /// A directory, file or socket of the host, which is there.
    Host {
        path: PathBuf,
    },
    Image(ImageSource),
    /// An in-memory file system of this container, with mount options such as `size=64m`.
    Tmpfs {
        options: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountOptions {
    pub(crate) access: Access,
    /// With the mounts below the source; only directories of the host have any.
    pub(crate) recursive: bool,
    pub(crate) propagation: Propagation,
    /// Owners show by the ids of the container's user namespace.
    pub(crate) id_mapped: bool,
    pub(crate) flags: Vec<MountFlag>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            access: Access::ReadWrite,
            recursive: true,
            propagation: Propagation::Private,
            id_mapped: false,
            flags: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadWrite,
    /// Mounts below the source may still be written.
    ReadOnly,
    RecursiveReadOnly,
}

/// Whether mounts that are made later on the host, below the source, show in the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Private,
    /// They show (HostToContainer).
    Slave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the names of mount(8)")]
pub(crate) enum MountFlag {
    NoSuid,
    NoDev,
    NoExec,
}

impl MountPlan {
    /// The whole source, readable and writable.
    pub(crate) fn new(source: MountSource, destination: impl Into<String>) -> Self {
        Self { source, destination: destination.into(), sub_path: None, options: MountOptions::default() }
    }
}

impl MountOptions {
    /// As [`Default`], with this access.
    pub(crate) fn with_access(access: Access) -> Self {
        Self { access, ..Self::default() }
    }
}

impl MountFlag {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoSuid => "nosuid",
            Self::NoDev => "nodev",
            Self::NoExec => "noexec",
        }
    }
}
