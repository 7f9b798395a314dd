//! A boot under husk-vmm, driven over its control socket as the shim does it.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use husk_vmm_control::{Boot as BootCall, Call, Event, FromVmm, Outcome, Request, Timeline, receive, send};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{Boot, GUEST_MIB, Guest, PATIENCE, memory};

/// Boots one VM to "agent ready", measures it and ends it.
pub(crate) fn boot(vmm: &Path, guest: &Guest) -> Result<Boot> {
    let dir = tempfile::tempdir()?;
    let open = |path: &Path| File::open(path).with_context(|| format!("opening {}", path.display()));
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm").context("opening /dev/kvm")?;
    let (kernel, initramfs) = (open(&guest.kernel)?, open(&guest.initramfs)?);
    let vsock = UnixListener::bind(dir.path().join("vsock.sock"))?;
    let console = File::create(dir.path().join("console"))?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    fcntl_setfd(&theirs, FdFlags::empty())?;

    let began = Instant::now();
    let mut child = Command::new(vmm)
        .arg("--control-fd")
        .arg(theirs.as_raw_fd().to_string())
        .env_clear()
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", vmm.display()))?;
    drop(theirs);
    let call = BootCall {
        memory_mib: GUEST_MIB,
        vcpus: 1,
        online_vcpus: 1,
        hotplug_mib: 0,
        guest_cid: 3,
        cmdline: String::new(),
        console_limit: 1 << 20,
    };
    let request = Request { id: 1, call: Call::Boot(call) };
    let fds = [kvm.as_fd(), kernel.as_fd(), initramfs.as_fd(), vsock.as_fd(), console.as_fd()];
    send(&ours, &request, &fds)?;
    let timeline = wait_for_ready(&ours);
    let ready = began.elapsed();
    let memory = memory::usage(child.id(), GUEST_MIB);
    drop(ours);
    // The VM ends with its control socket; were that broken, the benchmark shall not hang on it.
    let _ = child.kill();
    child.wait()?;

    let Timeline { requested_us, vm_created_us, loaded_us, started_us, ready_us } = timeline?;
    let steps = vec![
        ("request read", requested_us),
        ("VM created", vm_created_us),
        ("kernel loaded", loaded_us),
        ("guest entered", started_us),
        ("agent ready", ready_us),
    ];
    Ok(Boot { ready, memory: memory?, steps })
}

fn wait_for_ready(socket: &OwnedFd) -> Result<Timeline> {
    let timeout = Timespec { tv_sec: PATIENCE.as_secs().try_into()?, tv_nsec: 0 };
    loop {
        if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout))? == 0 {
            bail!("the agent was not ready after {} s", PATIENCE.as_secs());
        }
        let received = receive::<FromVmm>(socket)?.context("husk-vmm ended before the agent was ready")?;
        match received.message {
            FromVmm::Event(Event::Ready(timeline)) => return Ok(timeline),
            FromVmm::Event(Event::Exited(reason)) => bail!("the VM ended before the agent was ready: {reason:?}"),
            FromVmm::Reply { outcome: Outcome::Error(error), .. } => bail!("husk-vmm refused to boot: {error}"),
            FromVmm::Reply { .. } => {}
        }
    }
}
