//! The guest's half of `bench io`.
//!
//! As PID 1 of a VM it finds its devices, runs every workload on them and resets the machine. As a plain program, with
//! `net ADDRESS`, it runs the network's workloads where it is. What it measures goes to standard output, see [`phase`].

mod disks;
mod files;
mod interface;
mod network;
mod phase;
mod slots;

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::system::{RebootCommand, reboot};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, server] = arguments.as_slice()
        && command == "net"
    {
        return network::run(server.parse().with_context(|| format!("the server's address {server}"))?);
    }
    ensure!(std::process::id() == 1, "usage: husk-bench-guest net ADDRESS, or without arguments as PID 1 of a VM");
    if let Err(error) = serve() {
        phase::fail(&error);
    }
    // Both monitors take a reset for the end, each by the way that its kernel command line names.
    Ok(reboot(RebootCommand::Restart)?)
}

/// Everything, in a VM.
fn serve() -> Result<()> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        attach(kind, kind, Path::new(target), MountFlags::empty())?;
    }
    let cmdline = std::fs::read_to_string("/proc/cmdline")?;
    let option = |name: &str| -> Result<&str> {
        let words = cmdline.split_whitespace();
        let mut values = words.filter_map(|word| word.strip_prefix("bench.")?.strip_prefix(name)?.strip_prefix('='));
        values.next().with_context(|| format!("bench.{name}= is not on the kernel command line"))
    };
    let (address, server): (IpAddr, IpAddr) = (option("address")?.parse()?, option("server")?.parse()?);

    slots::bind_until(|| {
        Ok(disks::find("scratch")?.is_some() && disks::find("image")?.is_some() && interface::exists("eth0"))
    })?;
    if option("work")? == "all" {
        use_files()?;
    }
    interface::up("eth0", address)?;
    network::run(server)
}

/// The shared directory and the disks.
fn use_files() -> Result<()> {
    let disk = |serial: &str| disks::find(serial)?.with_context(|| format!("the disk {serial}"));

    // The device of the file system cannot be seen before it is mounted.
    slots::bind_until(|| Ok(attach("virtiofs", "bench", Path::new("/fs"), MountFlags::empty()).is_ok()))?;
    // As a container has it: a mount of its own, whose path does not lead through the device's root.
    std::fs::create_dir_all("/volume")?;
    mount_bind("/fs/tree", "/volume").context("binding /fs/tree to /volume")?;
    files::write_and_read("virtio-fs", Path::new("/volume"))?;
    attach("ext4", &disk("scratch")?, Path::new("/scratch"), MountFlags::NOATIME)?;
    files::write_and_read("scratch", Path::new("/scratch"))?;
    attach("erofs", &disk("image")?, Path::new("/image"), MountFlags::RDONLY)?;
    files::read("EROFS", Path::new("/image"))
}

fn attach(kind: &str, source: &str, target: &Path, flags: MountFlags) -> Result<()> {
    std::fs::create_dir_all(target)?;
    mount(source, target, kind, flags, None).with_context(|| format!("mounting {kind} on {}", target.display()))
}
