//! What husk needs of the machine it runs on, found out by trying.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

/// A small guest runs in well under a second with hardware, in a few without.
const PROBE_TIME: Duration = Duration::from_secs(60);

const KVM: &str = "/dev/kvm";

/// What is missing.
#[derive(Debug, Error)]
pub(crate) enum HostError {
    #[error(
        "KVM is not usable: opening /dev/kvm: {0}; load kvm_intel or kvm_amd, switch virtualization on in the firmware, or in a VM have nested virtualization allowed"
    )]
    NoKvm(io::Error),
    #[error("KVM is not usable: a small guest does not run: {0}")]
    KvmProbe(String),
    #[error("{} is no husk-vmm: it ended with {status} and without a word; set HUSK_VMM to one", path.display())]
    NoVmm { path: PathBuf, status: ExitStatus },
    #[error("{what} is not at {}: install it there or set {variable}", path.display())]
    Missing { what: &'static str, path: PathBuf, variable: &'static str },
    #[error("{} is not an uncompressed x86-64 kernel (vmlinux, an ELF file)", .0.display())]
    NoKernel(PathBuf),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is not in PATH: install {1}")]
    NoProgram(&'static str, &'static str),
    #[error("/sys/fs/cgroup is not cgroup v2: boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 there")]
    NoCgroup2,
    #[error("cgroup v2 has no {0} controller here: {1}")]
    NoController(String, &'static str),
}

/// Whether there is a KVM at all; quick.
pub(crate) fn kvm_is_there() -> Result<(), HostError> {
    File::options().read(true).write(true).open(KVM).map(drop).map_err(HostError::NoKvm)
}

/// Whether KVM runs a guest, found out by running one: a `/dev/kvm` can open, make VMs, and yet run nothing.
pub(crate) async fn probe_kvm() -> Result<(), HostError> {
    kvm_is_there()?;
    let vmm = vmm()?;
    let mut command = Command::new(&vmm);
    command.arg("--probe-kvm").stdin(Stdio::null()).kill_on_drop(true);
    match timeout(PROBE_TIME, command.output()).await {
        Err(_) => Err(HostError::KvmProbe(format!("it did not end within {} s", PROBE_TIME.as_secs()))),
        Ok(Err(source)) => Err(HostError::Io { path: vmm, source }),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let said = said.trim().trim_start_matches("husk-vmm: ");
            if said.is_empty() {
                return Err(HostError::NoVmm { path: vmm, status: output.status });
            }
            Err(HostError::KvmProbe(said.to_owned()))
        }
    }
}

/// The VMM: `HUSK_VMM`, or beside this executable, where the shim looks too.
pub(crate) fn vmm() -> Result<PathBuf, HostError> {
    installed("husk-vmm", "HUSK_VMM", "husk-vmm")
}

pub(crate) fn shim() -> Result<PathBuf, HostError> {
    let name = "containerd-shim-husk-v2";
    installed(name, "HUSK_SHIM", name).or_else(|error| program(name, "husk").map_err(|_| error))
}

/// The guest kernel, checked to be one.
pub(crate) fn kernel() -> Result<PathBuf, HostError> {
    let path = installed("guest kernel", "HUSK_KERNEL", "../lib/husk/vmlinux")?;
    let mut magic = [0u8; 20];
    let read = File::open(&path).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(HostError::Io { path, source: e }),
        // ELF, 64-bit, little-endian; machine 62 is x86-64 (System V ABI, AMD64 supplement).
        Ok(()) if magic.starts_with(b"\x7fELF\x02\x01") && magic.ends_with(&[62, 0]) => Ok(path),
        _ => Err(HostError::NoKernel(path)),
    }
}

pub(crate) fn initramfs() -> Result<PathBuf, HostError> {
    installed("initramfs", "HUSK_INITRAMFS", "../lib/husk/initramfs.cpio")
}

/// A file of the installation: where `variable` says, else at `relative` to this executable's directory.
fn installed(what: &'static str, variable: &'static str, relative: &str) -> Result<PathBuf, HostError> {
    let path = match env::var_os(variable).filter(|value| !value.is_empty()) {
        Some(value) => PathBuf::from(value),
        None => beside(relative),
    };
    if path.is_file() { Ok(path) } else { Err(HostError::Missing { what, path, variable }) }
}

fn beside(relative: &str) -> PathBuf {
    let exe = env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/husk"));
    let directory = exe.parent().unwrap_or_else(|| Path::new("/usr/bin"));
    match relative.strip_prefix("../") {
        Some(rest) => directory.parent().unwrap_or(directory).join(rest),
        None => directory.join(relative),
    }
}

/// A program of the system; administrators' directories count too, whatever PATH says.
pub(crate) fn program(name: &'static str, package: &'static str) -> Result<PathBuf, HostError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    let mut candidates = directories.map(|directory| directory.join(OsStr::new(name)));
    candidates.find(|candidate| candidate.is_file()).ok_or(HostError::NoProgram(name, package))
}

/// Whether limits can be set for pods on this host.
pub(crate) fn cgroups() -> Result<String, HostError> {
    const ROOT: &str = "/sys/fs/cgroup";
    let controllers = fs::read_to_string(format!("{ROOT}/cgroup.controllers")).map_err(|_| HostError::NoCgroup2)?;
    for needed in ["cpu", "memory", "pids"] {
        if !controllers.split_whitespace().any(|c| c == needed) {
            let mend = "enable it in the kernel (for memory: cgroup_enable=memory), or free it from cgroup v1";
            return Err(HostError::NoController(needed.to_owned(), mend));
        }
    }
    Ok(controllers.trim().to_owned())
}
