//! From the kernel's initramfs to a guest in which the agent can serve: file systems, cgroups, limits, loopback.
//!
//! Runs before anything else, single-threaded, and in one order; what depends on the pod is `pod::identity`.

pub mod cmdline;
pub mod ports;

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountFlags};

use crate::cgroup::{Cgroup, sysctls};
use crate::error::{Context, Result};
use crate::paths;
use crate::sys::{MountAttr, mount_setattr};

/// Size limit of the agent's own root, which holds mount points and three small files.
const ROOT_OPTIONS: &std::ffi::CStr = c"mode=0755,size=16m";
/// Memory that no pressure in the pod can take from the agent, in bytes.
const AGENT_MEMORY_MIN: &str = "16777216";
/// Files that a process may have open unless its container says otherwise, as containerd has it.
const MAX_FILES: u64 = 1 << 20;

const DIRECTORIES: [&str; 14] = [
    "proc",
    "sys",
    "dev",
    "run",
    "run/husk",
    "run/husk/root",
    "run/husk/disks",
    "run/husk/scratch",
    "run/husk/shm",
    "run/husk/pod",
    "run/husk/images",
    "run/husk/layers",
    "run/husk/volumes",
    "tmp",
];

/// The cgroups that booting makes.
#[derive(Debug)]
pub struct Cgroups {
    /// Holds the agent's processes.
    pub agent: Cgroup,
    /// Holds the containers' cgroups.
    pub pod: Cgroup,
}

/// Leaves the initramfs for a root that containers can pivot away from, and mounts the kernel's file systems.
pub fn mount_file_systems() -> Result<()> {
    const NEW: &str = "/husk";
    make_directory(NEW)?;
    crate::agent::mount_tmpfs(NEW, ROOT_OPTIONS)?;
    for directory in DIRECTORIES {
        make_directory(&format!("{NEW}/{directory}"))?;
    }
    // The agent's own file lies here. Through /proc/self/exe a container could execute or, as root, overwrite it
    // (CVE-2019-5736): this mount forbids both.
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).on("open", "/")?;
    let forbid =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let attributes = MountAttr { set: u64::from(forbid.bits()), ..MountAttr::default() };
    mount_setattr(root.as_fd(), &attributes, false).on("mount_setattr", "/ (initramfs)")?;
    drop(root);
    rustix::process::chdir(NEW).on("chdir", NEW)?;
    // pivot_root(2) refuses the initramfs; moved over it, our tmpfs is an ordinary mount.
    rustix::mount::mount_move(".", "/").on("mount", "/ (move)")?;
    rustix::process::chroot(".").on("chroot", "/")?;
    rustix::process::chdir("/").on("chdir", "/")?;

    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mount = |fs: &str, at: &str, flags, data: &std::ffi::CStr| {
        rustix::mount::mount(fs, at, fs, flags, data).on("mount", format_args!("{fs} on {at}"))
    };
    mount("proc", "/proc", quiet, c"")?;
    mount("sysfs", "/sys", quiet, c"")?;
    mount("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=0755")?;
    mount("tmpfs", paths::DISKS, MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=0700,nr_inodes=256,nr_blocks=1")?;
    mount("cgroup2", paths::CGROUP, quiet, c"nsdelegate,memory_recursiveprot")
}

fn make_directory(path: &str) -> Result<()> {
    std::fs::create_dir(path).on("mkdir", path)
}

/// Makes `/agent`, with this process in it, and `/pod`, with every controller.
pub fn make_cgroups() -> Result<Cgroups> {
    let root = Cgroup::at(paths::CGROUP);
    let cgroups = Cgroups { agent: root.child("agent"), pod: root.child("pod") };
    cgroups.agent.create()?;
    cgroups.pod.create()?;
    root.enable_controllers()?;
    cgroups.pod.enable_controllers()?;
    cgroups.agent.write("cgroup.procs", "1")?;
    sysctls::protect(&cgroups.pod)?;
    // The root has no memory controller files, its children do.
    cgroups.agent.write("memory.min", AGENT_MEMORY_MIN)?;
    Ok(cgroups)
}

/// Limits that processes inherit and that the kernel derives from the memory of the template, which is small. A guest
/// whose kernel refuses one still works, so that is only logged.
pub fn raise_limits() {
    let limits =
        [(libc::RLIMIT_NOFILE, MAX_FILES), (libc::RLIMIT_NPROC, u64::MAX), (libc::RLIMIT_SIGPENDING, u64::MAX)];
    for (resource, limit) in limits {
        if let Err(errno) = crate::sys::set_rlimit(resource, limit, limit) {
            crate::warning!("prlimit64 {resource}: {errno}");
        }
    }
    let sysctls = [
        ("kernel/threads-max", "1048576"),
        ("kernel/pid_max", "4194304"),
        // As kubelet sets it on every node: containers have limits of their own.
        ("vm/overcommit_memory", "1"),
        // Should the kernel ever run a program by itself, in the agent's root, then without any capability; a set that
        // is taken away here cannot be given back.
        ("kernel/usermodehelper/bset", "0 0"),
        ("kernel/usermodehelper/inheritable", "0 0"),
        // As containerd and podman set them: the network is the pod's own, and nobody else's port or echo is taken.
        ("net/ipv4/ping_group_range", "0 2147483647"),
        ("net/ipv4/ip_unprivileged_port_start", "0"),
    ];
    for (name, value) in sysctls {
        if let Err(error) = std::fs::write(Path::new("/proc/sys").join(name), value) {
            crate::warning!("write /proc/sys/{name}: {error}");
        }
    }
}
