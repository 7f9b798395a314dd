//! What is mounted in a container: the kernel's file systems, the pod's files, and the volumes that were asked for.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use crate::pods::plan::{Medium, MountPlan, MountSource, VolumePlan};

/// Destination, type, source, options.
const DEFAULT: [(&str, &str, &str, &[&str]); 10] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "husk.shm", "shm", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ("/etc/hosts", "husk.pod-file", "hosts", &[]),
    ("/etc/hostname", "husk.pod-file", "hostname", &[]),
    ("/etc/resolv.conf", "husk.pod-file", "resolv.conf", &[]),
];

/// All mounts of a container, parents before children. One that was asked for takes the place of a default one.
pub(super) fn all(wanted: &[MountPlan], volumes: &[VolumePlan], disk: &dyn Fn(&str) -> PathBuf) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = DEFAULT
        .iter()
        .filter(|(destination, ..)| !wanted.iter().any(|m| same_place(&m.destination, destination)))
        .map(|(destination, typ, source, options)| {
            mount(destination, typ, Path::new(source), options.iter().map(|o| (*o).to_owned()).collect())
        })
        .collect();
    mounts.extend(wanted.iter().map(|m| of_plan(m, volumes, disk)));
    // Stable, so that mounts of equal depth keep their order.
    mounts.sort_by_key(|m| depth(m.destination()));
    mounts
}

fn of_plan(plan: &MountPlan, volumes: &[VolumePlan], disk: &dyn Fn(&str) -> PathBuf) -> Mount {
    let access = if plan.read_only { "ro" } else { "rw" }.to_owned();
    match &plan.source {
        MountSource::PodVolume { name, sub_path } => {
            let mut options = vec![access];
            if let Some(volume) = volumes.iter().find(|v| v.name == *name) {
                options.push(match volume.medium {
                    Medium::Disk => "medium=disk".to_owned(),
                    Medium::Memory => "medium=memory".to_owned(),
                });
                options.extend(volume.size.map(|bytes| format!("size={bytes}")));
            }
            options.extend(sub_path.as_ref().map(|path| format!("subpath={path}")));
            mount(&plan.destination, "husk.volume", Path::new(name), options)
        }
        MountSource::NamedVolume { name } => mount(&plan.destination, "husk.disk", &disk(name), vec![access]),
        MountSource::Tmpfs { options } => {
            let mut all = vec!["nosuid".to_owned(), "nodev".to_owned(), access];
            all.extend(options.iter().cloned());
            mount(&plan.destination, "tmpfs", Path::new("tmpfs"), all)
        }
    }
}

fn mount(destination: &str, typ: &str, source: &Path, options: Vec<String>) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(typ.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options));
    mount
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

fn same_place(a: &str, b: &str) -> bool {
    Path::new(a).components().eq(Path::new(b).components())
}
