//! A boot under QEMU's microvm machine with everything turned off that the guest does not use.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Boot, GUEST_MIB, Guest, PATIENCE, memory};

/// Where the agent writes its ready byte. Not husk-vmm's own port: QEMU's is taken by fw_cfg, which its firmware uses.
const READY_PORT: &str = "0x600";

/// A running machine, ended with its handle.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    /// Spawn of the process to the agent's ready byte.
    pub(crate) ready: Duration,
    _console: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Boots one VM to "agent ready", measures it and ends it.
pub(crate) fn boot(guest: &Guest) -> Result<Boot> {
    let machine = start(guest)?;
    Ok(Boot { ready: machine.ready, memory: memory::usage(machine.pid(), GUEST_MIB)?, steps: Vec::new() })
}

/// Boots one VM to "agent ready".
pub(crate) fn start(guest: &Guest) -> Result<Machine> {
    let dir = tempfile::tempdir()?;
    let console = dir.path().join("console");
    let mut command = Command::new("qemu-system-x86_64");
    command
        // Without ACPI, as our guest kernel has none; the firmware then makes an MPTable.
        .args(["-M", "microvm,acpi=off,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on"])
        .args(["-accel", "kvm", "-cpu", "host", "-smp", "1"])
        .args(["-m", &GUEST_MIB.to_string()])
        .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
        .arg("-kernel")
        .arg(&guest.kernel)
        .arg("-initrd")
        .arg(&guest.initramfs)
        .args(["-append", &format!("console=ttyS0 quiet panic=1 reboot=t husk.port={READY_PORT}")])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-device", "vhost-vsock-device,guest-cid=4242"])
        // What is written to this port comes out of QEMU's standard output.
        .args(["-chardev", "stdio,id=ready,signal=off"])
        .args(["-device", &format!("isa-debugcon,iobase={READY_PORT},chardev=ready")]);
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting qemu-system-x86_64, from the package qemu-system-x86")?;

    let (tell, told) = mpsc::channel();
    let mut output = child.stdout.take().context("QEMU's output")?;
    std::thread::spawn(move || {
        let mut byte = [0];
        let _ = tell.send(output.read(&mut byte).map(|count| (count, Instant::now())));
    });
    match told.recv_timeout(PATIENCE) {
        Ok(Ok((1, at))) => Ok(Machine { child, ready: at - began, _console: dir }),
        _ => {
            let _ = child.kill();
            let finished = child.wait_with_output()?;
            bail!(
                "the agent did not get ready; QEMU said {:?} and the console {:?}",
                String::from_utf8_lossy(&finished.stderr),
                std::fs::read_to_string(&console).unwrap_or_default()
            )
        }
    }
}
