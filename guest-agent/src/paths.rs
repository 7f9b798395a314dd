//! Where the agent keeps its things in the guest's own file system. No container ever sees these paths.

use std::path::PathBuf;

/// Root of the cgroup v2 hierarchy.
pub const CGROUP: &str = "/sys/fs/cgroup";
/// A container's own cgroup, below the one of its id.
pub const CONTAINER_CGROUP: &str = "container";
/// The cgroup of PID 1 of a shared process namespace.
pub const REAPER_CGROUP: &str = "/sys/fs/cgroup/reaper";
/// Empty directory that a launching process mounts its container's root on, in its own mount namespace.
pub const NEW_ROOT: &str = "/run/husk/root";
/// Nodes of the pod's disks.
pub const DISKS: &str = "/run/husk/disks";
/// The pod's scratch disk.
pub const SCRATCH: &str = "/run/husk/scratch";
/// The pod's `/dev/shm`.
pub const SHM: &str = "/run/husk/shm";
/// Where images with mapped ids are mounted while the overlay of a container's root is made of them.
pub const LAYERS: &str = "/run/husk/layers";
/// hosts, hostname and resolv.conf of the pod.
pub const POD_FILES: &str = "/run/husk/pod";
/// Links to the platform devices, among them the virtio-mmio slots, wherever those lie in the tree of devices. (Those of the command line have a parent of their own below
/// /sys/devices; the bus lists them all.)
pub const PLATFORM: &str = "/sys/bus/platform/devices";
/// The driver of the slots.
pub const VIRTIO_MMIO_DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";

/// Mount point of an EROFS image.
#[must_use]
pub fn image(slot: u32) -> PathBuf {
    PathBuf::from(format!("/run/husk/images/{slot}"))
}

/// Mount point of a volume that is a file system of its own.
#[must_use]
pub fn volume(name: &str) -> PathBuf {
    PathBuf::from(format!("/run/husk/volumes/{name}"))
}

/// Mount point of the file system with the trees of the host.
pub const SHARED: &str = "/run/husk/shared";

/// A tree of the host.
#[must_use]
pub fn shared_volume(name: &str) -> PathBuf {
    PathBuf::from(format!("{SHARED}/{name}"))
}

/// Directory of a volume on the scratch disk.
#[must_use]
pub fn scratch_volume(name: &str) -> PathBuf {
    PathBuf::from(format!("{SCRATCH}/volumes/{name}"))
}

/// Directory of a container's writable layer on the scratch disk.
#[must_use]
pub fn scratch_container(id: &str) -> PathBuf {
    PathBuf::from(format!("{SCRATCH}/containers/{id}"))
}
