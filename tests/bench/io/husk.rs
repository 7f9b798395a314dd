//! A run under husk-vmm, driven over its control socket as the shim does it.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use husk_vmm_control::{Boot, Call, Device, FromVmm, Outcome, Reply, Request, receive, send};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::network::Network;
use super::stage::Stage;
use super::transcript::{self, Phase};
use super::{GUEST_MIB, cpu};

/// Console bytes; the transcript has a few thousand.
const CONSOLE_LIMIT: u64 = 1 << 20;

struct Vmm {
    child: Child,
    control: OwnedFd,
    calls: u64,
}

impl Vmm {
    fn spawn(program: &Path) -> Result<Self> {
        let (control, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let child = Command::new(program)
            .arg("--control-fd")
            .arg(theirs.as_raw_fd().to_string())
            .env_clear()
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { child, control, calls: 0 })
    }

    fn call(&mut self, call: Call, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        self.calls += 1;
        let what = format!("{call:?}");
        send(&self.control, &Request { id: self.calls, call }, fds)?;
        loop {
            match receive::<FromVmm>(&self.control)?.context("husk-vmm ended")?.message {
                FromVmm::Reply { outcome: Outcome::Ok(reply), .. } => return Ok(reply),
                FromVmm::Reply { outcome: Outcome::Error(error), .. } => bail!("{what}: {error}"),
                FromVmm::Event(_) => {}
            }
        }
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn perform(stage: &Stage) -> Result<Vec<Phase>> {
    let props = stage.props()?;
    let tap = stage.network.tap()?;
    let mut vmm = Vmm::spawn(&stage.vmm)?;
    let pid = vmm.child.id();

    let boot = Boot {
        memory_mib: GUEST_MIB,
        vcpus: 1,
        online_vcpus: 1,
        hotplug_mib: 0,
        guest_cid: 3,
        cmdline: stage.cmdline("all"),
        console_limit: CONSOLE_LIMIT,
    };
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm").context("opening /dev/kvm")?;
    let (kernel, initramfs) = (open(&stage.kernel)?, open(&stage.initramfs)?);
    let vsock = UnixListener::bind(props.path("vsock.sock"))?;
    let (output, console) = std::io::pipe()?;
    let fds = [kvm.as_fd(), kernel.as_fd(), initramfs.as_fd(), vsock.as_fd(), console.as_fd()];
    vmm.call(Call::Boot(boot), &fds)?;
    drop(console);

    let descriptors = path_descriptor(Path::new(&format!("/proc/{pid}/fd")))?;
    let fs = vmm.call(Call::Plug(Device::Fs { tag: "bench".to_owned() }), &[descriptors.as_fd()])?;
    let Reply::Plugged { slot } = fs else { bail!("plugging a file system was answered by {fs:?}") };
    let tree = path_descriptor(&props.shared().join("tree"))?;
    vmm.call(Call::Export { slot, name: "tree".to_owned(), read_only: false }, &[tree.as_fd()])?;
    let scratch = OpenOptions::new().read(true).write(true).open(props.scratch())?;
    vmm.call(Call::Plug(Device::Blk { read_only: false, serial: "scratch".to_owned() }), &[scratch.as_fd()])?;
    let image = open(stage.image())?;
    vmm.call(Call::Plug(Device::Blk { read_only: true, serial: "image".to_owned() }), &[image.as_fd()])?;
    vmm.call(Call::Plug(Device::Net { mac: Network::MAC, mtu: None }), &[tap.fd.as_fd()])?;

    let pids = [i32::try_from(pid)?];
    transcript::follow(output, || cpu::time_of(&pids))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("opening {}", path.display()))
}

fn path_descriptor(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {}", path.display()))
}
