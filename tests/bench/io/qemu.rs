//! A run under QEMU's microvm machine with virtiofsd beside it.
//!
//! What is set means the same as with husk-vmm: images through the host's page cache, flushes passed on to the file
//! (`cache.direct=off,cache.no-flush=off`), discards passed on; virtiofsd with its defaults, which believe names and
//! attributes for a second, and write through.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::{FdFlags, fcntl_setfd};

use super::network::Network;
use super::stage::Stage;
use super::transcript::{self, Phase};
use super::{GUEST_MIB, cpu};

/// From the package qemu-system-common.
const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";
/// Until virtiofsd listens.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ended when dropped.
struct Process(Child);

impl Process {
    fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        Ok(Self(command.stdin(Stdio::null()).spawn().with_context(|| format!("starting {name}"))?))
    }

    fn pid(&self) -> Result<i32> {
        Ok(self.0.id().try_into()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn perform(stage: &Stage, vhost: bool) -> Result<Vec<Phase>> {
    let props = stage.props()?;
    let tap = stage.network.tap()?;
    // For QEMU to inherit.
    fcntl_setfd(&tap.fd, FdFlags::empty())?;
    let socket = props.path("virtiofsd.sock");
    let daemon = virtiofsd(&socket, &props.shared())?;

    let drive = |name: &str, file: &Path, more: &str| {
        let file = file.display();
        format!("driver=file,node-name={name},filename={file},aio=threads,cache.direct=off,cache.no-flush=off,{more}")
    };
    // The rest would be what it is without vhost.
    let (on_off, work) = if vhost { ("on", "net") } else { ("off", "all") };
    let mut command = Command::new("qemu-system-x86_64");
    command
        // Without ACPI, as our guest kernel has none; the firmware then makes an MPTable.
        .args(["-M", "microvm,acpi=off,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on,memory-backend=ram"])
        .args(["-object", &format!("memory-backend-memfd,id=ram,size={GUEST_MIB}M,share=on")])
        .args(["-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", &GUEST_MIB.to_string()])
        .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
        .args(["-global", "virtio-mmio.force-legacy=false"])
        .arg("-kernel")
        .arg(&stage.kernel)
        .arg("-initrd")
        .arg(&stage.initramfs)
        .args(["-append", &format!("console=ttyS0 panic=1 reboot=t {}", stage.cmdline(work))])
        .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
        .args(["-chardev", &format!("socket,id=fs,path={}", socket.display())])
        .args(["-device", "vhost-user-fs-device,chardev=fs,tag=bench,queue-size=512"])
        .args(["-blockdev", &drive("scratch", &props.scratch(), "discard=unmap")])
        .args(["-device", "virtio-blk-device,drive=scratch,serial=scratch"])
        .args(["-blockdev", &drive("image", stage.image(), "read-only=on")])
        .args(["-device", "virtio-blk-device,drive=image,serial=image"])
        .args(["-netdev", &format!("tap,id=net,fd={},vhost={on_off}", tap.fd.as_raw_fd())])
        .args(["-device", &format!("virtio-net-device,netdev=net,mac={}", Network::mac())]);
    let mut qemu = Process::spawn(command.stdout(Stdio::piped())).context("from the package qemu-system-x86")?;
    fcntl_setfd(&tap.fd, FdFlags::CLOEXEC)?;
    let output = qemu.0.stdout.take().context("QEMU's output")?;
    let pids = [qemu.pid()?, daemon.pid()?];
    transcript::follow(output, || {
        let mut pids = pids.to_vec();
        // Only one VM runs at a time.
        pids.extend(cpu::kernel_threads("vhost-"));
        cpu::time_of(&pids)
    })
}

fn virtiofsd(socket: &Path, shared: &Path) -> Result<Process> {
    let mut daemon =
        Process::spawn(Command::new(VIRTIOFSD).arg("-f").arg(format!("--socket-path={}", socket.display())).args([
            "-o",
            &format!("source={}", shared.display()),
            "-o",
            "sandbox=chroot,log_level=err",
        ]))
        .context("from the package qemu-system-common")?;
    let began = Instant::now();
    while !socket.exists() {
        ensure!(daemon.0.try_wait()?.is_none(), "virtiofsd ended");
        ensure!(began.elapsed() < PATIENCE, "virtiofsd does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(daemon)
}
