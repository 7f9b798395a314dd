//! Does `/dev/kvm` really run a guest? Found out by running one.
//!
//! That the device opens and creates VMs says little: a software hypervisor's does that too and then stops at the first
//! unusual instruction, or for ever. So a few bytes of guest code run in a child process that can be killed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VcpuExit;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::boot;
use crate::memory::GuestRam;
use crate::vcpu;
use crate::vm::{VmError, open_kvm, refused};

/// Hidden argument that makes the binary run the guest and nothing else.
pub const GUEST_ARGUMENT: &str = "--probe-kvm-guest";
const DEVICE: &str = "/dev/kvm";
/// A guest of six instructions takes microseconds; under emulation on a loaded machine perhaps a second.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a killed child may take to go.
const REAP: Duration = Duration::from_secs(2);

const PORT: u16 = 0x510;
const ANSWER: u8 = 0x2a;
/// What the guest does, in 64-bit mode: `mov $0x2000, %edi; lock cmpxchg16b (%rdi); mov $0x2a, %al; mov $0x510, %edx;
/// out %al, %dx; hlt`. Hypervisors that interpret their guest are known to lack `cmpxchg16b`, which Linux needs.
const CODE: [u8; 19] = [
    0xbf, 0x00, 0x20, 0x00, 0x00, 0xf0, 0x48, 0x0f, 0xc7, 0x0f, 0xb0, ANSWER, 0xba, 0x10, 0x05, 0x00, 0x00, 0xee, 0xf4,
];
const CODE_ADDRESS: u64 = 0x1000;
const RAM: usize = 0x1_0000;

/// Why this machine cannot run guests.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "no KVM: {DEVICE} does not exist; turn on virtualization (VT-x, AMD-V) in the firmware, or nested virtualization for this VM, and load kvm_intel or kvm_amd"
    )]
    Missing,
    #[error("no access to {DEVICE}: {0}; run as root or join the group that owns it")]
    Access(io::Error),
    #[error("cannot open {DEVICE}: {0}")]
    Open(io::Error),
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error("cannot set up the test guest: {0}")]
    Setup(String),
    #[error(
        "KVM does not run a simple guest: {0}; is this a software hypervisor, or nested virtualization that is off?"
    )]
    Guest(String),
    #[error("cannot start the test process: {0}")]
    Spawn(io::Error),
    #[error("KVM did not finish a guest of six instructions within {} seconds: it does not run ordinary guests", DEADLINE.as_secs())]
    Hung,
    #[error("the test process ended with signal {0}")]
    Signal(i32),
    /// The child has told the reason already.
    #[error("{0}")]
    Child(String),
}

/// Runs the guest in a child process with a deadline; the answer is a sentence for people.
pub fn probe() -> Result<String, ProbeError> {
    let program = std::env::current_exe().map_err(ProbeError::Spawn)?;
    let mut child = Command::new(program)
        .arg(GUEST_ARGUMENT)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ProbeError::Spawn)?;
    let Some(status) = wait(&mut child, DEADLINE)? else {
        let _ = child.kill();
        // A child that hangs in the kernel does not even die; then it is left behind rather than waited for.
        wait(&mut child, REAP)?;
        return Err(ProbeError::Hung);
    };
    if status.success() {
        return Ok(format!("{DEVICE} works: a guest ran"));
    }
    if let Some(signal) = status.signal() {
        return Err(ProbeError::Signal(signal));
    }
    let said = child.stderr.take().map(io::read_to_string).and_then(Result::ok).unwrap_or_default();
    Err(ProbeError::Child(said.trim().trim_start_matches("husk-vmm: ").to_owned()))
}

/// Waits for a child with a deadline, without a signal handler or another thread.
fn wait(child: &mut Child, deadline: Duration) -> Result<Option<std::process::ExitStatus>, ProbeError> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().map_err(ProbeError::Spawn)? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the guest in this process.
pub fn run_guest() -> Result<(), ProbeError> {
    let device = File::options().read(true).write(true).open(DEVICE).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ProbeError::Missing,
        io::ErrorKind::PermissionDenied => ProbeError::Access(error),
        _ => ProbeError::Open(error),
    })?;
    let kvm = open_kvm(OwnedFd::from(device))?;
    let vm = kvm.create_vm().map_err(refused("create a VM"))?;
    let setup = |error: &dyn std::fmt::Display| ProbeError::Setup(error.to_string());
    let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM)]).map_err(|error| setup(&error))?;
    ram.write_slice(&CODE, GuestAddress(CODE_ADDRESS)).map_err(|error| setup(&error))?;
    boot::write_tables(&ram).map_err(|error| setup(&error))?;
    let host = ram.get_host_address(GuestAddress(0)).map_err(|error| setup(&error))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: u64::try_from(RAM).map_err(|error| setup(&error))?,
        userspace_addr: u64::try_from(host.addr()).map_err(|error| setup(&error))?,
    };
    // SAFETY: `ram` stays mapped until the VM is dropped, which is before it: it is declared earlier than the vCPU and
    // the process ends after this function.
    unsafe { vm.set_user_memory_region(region) }.map_err(refused("map guest memory"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(refused("create a vCPU"))?;
    vcpu.set_cpuid2(&vcpu::supported_cpuid(&kvm)?).map_err(refused("set a vCPU's CPUID"))?;
    vcpu::set_entry(&vcpu, GuestAddress(CODE_ADDRESS))?;
    match vcpu.run() {
        Ok(VcpuExit::IoOut(PORT, [ANSWER])) => {}
        Ok(VcpuExit::InternalError) => {
            return Err(ProbeError::Guest("KVM reports an internal error at a common instruction".to_owned()));
        }
        other => return Err(ProbeError::Guest(format!("instead of its port write came {other:?}"))),
    }
    // Without an in-kernel interrupt controller a halt comes to us.
    match vcpu.run() {
        Ok(VcpuExit::Hlt) => Ok(()),
        other => Err(ProbeError::Guest(format!("instead of its halt came {other:?}"))),
    }
}
