//! `husk-vmm`: runs one VM, told what to do over an inherited control socket.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use husk_vmm::monitor::Monitor;
use husk_vmm::timeline::Clock;
use husk_vmm::{probe, seccomp, vcpu};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors to ask for, where the hard limit is lower.
const DESCRIPTORS: u64 = 1 << 18;

const USAGE: &str = "usage: husk-vmm --control-fd N    run a VM; N is an inherited SOCK_SEQPACKET unix socket
       husk-vmm --probe-kvm       test by running a small guest whether /dev/kvm works
       husk-vmm --version";

enum Mode {
    Run(RawFd),
    Probe,
    ProbeGuest,
    Version,
}

fn mode(arguments: &[String]) -> anyhow::Result<Mode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--control-fd", number] => {
            let fd = number.parse().ok().filter(|fd| *fd > 2);
            Ok(Mode::Run(fd.with_context(|| format!("--control-fd {number}: not the number of an inherited socket"))?))
        }
        ["--probe-kvm"] => Ok(Mode::Probe),
        [probe::GUEST_ARGUMENT] => Ok(Mode::ProbeGuest),
        ["--version"] => Ok(Mode::Version),
        _ => bail!("{USAGE}"),
    }
}

/// One allocation arena for all threads: they allocate little, more arenas cost memory, and to choose their number glibc
/// would read files in /sys, which no filter of ours allows.
#[cfg(target_env = "gnu")]
fn limit_allocator() {
    // SAFETY: sets a parameter of the allocator; no other thread exists yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(not(target_env = "gnu"))]
fn limit_allocator() {}

/// As many descriptors as may be: each file that a guest knows by virtio-fs is one. Without the privilege to raise the
/// hard limit, that is the limit.
fn raise_descriptor_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let raised = Some(hard.unwrap_or(DESCRIPTORS).max(DESCRIPTORS));
    for limit in [raised, hard] {
        if setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).is_ok() {
            return;
        }
    }
}

fn run(fd: RawFd, start: Instant) -> anyhow::Result<()> {
    limit_allocator();
    raise_descriptor_limit();
    // Files that a guest makes get the mode that it asks for; its kernel has applied the caller's mask.
    rustix::process::umask(rustix::fs::Mode::empty());
    seccomp::install_handler().context("cannot handle SIGSYS")?;
    vcpu::install_kick_handler().context("cannot handle the vCPUs' signal")?;
    // SAFETY: only borrowed to ask whether it is open, before anything else could take the number.
    let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let kind = rustix::net::sockopt::socket_type(socket);
    if kind != Ok(rustix::net::SocketType::SEQPACKET) {
        bail!("--control-fd {fd}: not an open SOCK_SEQPACKET socket");
    }
    // SAFETY: it is open, was inherited for us, and nothing else in this process uses it.
    let control = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Monitor::new(control, Clock::new(start)).run()?)
}

fn perform(mode: Mode, start: Instant) -> anyhow::Result<()> {
    match mode {
        Mode::Run(fd) => run(fd, start)?,
        Mode::Probe => println!("{}", probe::probe()?),
        Mode::ProbeGuest => probe::run_guest()?,
        Mode::Version => println!("husk-vmm {}", env!("CARGO_PKG_VERSION")),
    }
    Ok(())
}

fn main() -> ExitCode {
    let start = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = mode(&arguments).and_then(|mode| perform(mode, start));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("husk-vmm: {error:#}");
            ExitCode::FAILURE
        }
    }
}
