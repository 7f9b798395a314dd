//! Which system calls each kind of thread may make.
//!
//! A filter is installed by each thread for itself, before guest code runs. A thread made later inherits its maker's
//! filter too; only the main thread makes threads then, so its list holds the device threads' as well.
//!
//! A forbidden call ends the process: the handler names it on standard error first, which a plain kill would not.

use std::collections::BTreeMap;

use libc::{c_int, c_void, siginfo_t};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use vmm_sys_util::signal::register_signal_handler;

use crate::virtio::net::tap;

/// Exit status of a VMM that made a forbidden system call: 128 + SIGSYS, as a shell would show it.
pub const FORBIDDEN_EXIT: i32 = 128 + libc::SIGSYS;

/// Kinds of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Control socket; makes and joins device threads.
    Main,
    /// Runs guest code.
    Vcpu,
    /// Serves a device.
    Device,
    /// Serves files: a device that opens what the guest names in exported trees.
    Files,
}

/// Why a thread could not be confined.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine a {role:?} thread with seccomp: {source}; the kernel needs CONFIG_SECCOMP_FILTER")]
pub struct SeccompError {
    role: Role,
    source: seccompiler::Error,
}

// ioctl numbers (include/uapi/linux/kvm.h).
const KVM_RUN: u64 = 0xae80;
const KVM_IRQFD: u64 = 0x4020_ae76;
const KVM_IOEVENTFD: u64 = 0x4040_ae79;
// asm-generic/ioctls.h.
const FIONBIO: u64 = 0x5421;

/// Memory management of the allocator and of threads. Never executable: see [`executable`].
const MEMORY: &[i64] = &[libc::SYS_brk, libc::SYS_mremap, libc::SYS_munmap, libc::SYS_madvise];
const MAPPING: &[i64] = &[libc::SYS_mmap, libc::SYS_mprotect];

/// What every thread needs to run, wait, talk to others and end.
const COMMON: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// A device's input and output.
const DEVICE: &[i64] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_readv,
    libc::SYS_sendmsg,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
];

/// File system calls of `husk-fs`, besides mknodat. What such a thread could reach by a path is for the process's jail to
/// bound.
const FILES: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_copy_file_range,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fsetxattr,
    libc::SYS_fremovexattr,
];

/// Messages with descriptors, looking at what arrived, making and confining device threads, kicking vCPUs.
const MAIN: &[i64] = &[
    libc::SYS_recvmsg,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_eventfd2,
    libc::SYS_clone3,
    libc::SYS_clone,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_tgkill,
    libc::SYS_getpid,
    libc::SYS_gettid,
];

fn argument(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value)?])
}

/// Protection without PROT_EXEC: no thread can make memory executable.
fn not_executable() -> Result<SeccompRule, seccompiler::BackendError> {
    let exec = u64::from(libc::PROT_EXEC.unsigned_abs());
    argument(2, SeccompCmpOp::MaskedEq(exec), 0)
}

fn ioctls(role: Role) -> &'static [u64] {
    match role {
        // The last one for the threads that it makes: they inherit its filter.
        Role::Main => &[KVM_IRQFD, KVM_IOEVENTFD, tap::TUNGETIFF, tap::TUNSETVNETHDRSZ, FIONBIO, tap::TUNSETOFFLOAD],
        Role::Vcpu => &[KVM_RUN],
        // A driver decides about offloads when it is ready.
        Role::Device => &[tap::TUNSETOFFLOAD],
        Role::Files => &[],
    }
}

fn program(role: Role) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let more: &[&[i64]] = match role {
        Role::Main => &[DEVICE, FILES, MAIN],
        Role::Vcpu => &[],
        Role::Device => &[DEVICE],
        Role::Files => &[FILES],
    };
    for call in [COMMON, MEMORY].iter().chain(more).copied().flatten() {
        rules.insert(*call, vec![]);
    }
    for call in MAPPING {
        rules.insert(*call, vec![not_executable()?]);
    }
    if matches!(role, Role::Main | Role::Files) {
        // FIFOs, sockets, overlayfs's whiteouts; no device has the number 0.
        rules.insert(libc::SYS_mknodat, vec![argument(3, SeccompCmpOp::Eq, 0)?]);
    }
    let ioctls =
        ioctls(role).iter().map(|number| argument(1, SeccompCmpOp::Eq, *number)).collect::<Result<Vec<_>, _>>()?;
    if !ioctls.is_empty() {
        rules.insert(libc::SYS_ioctl, ioctls);
    }
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, arch)?.try_into()
}

/// Confines the calling thread, for good. Also sets "no new privileges".
pub fn confine(role: Role) -> Result<(), SeccompError> {
    let program = program(role).map_err(|source| SeccompError { role, source: source.into() })?;
    seccompiler::apply_filter(&program).map_err(|source| SeccompError { role, source })
}

/// Makes forbidden calls name themselves. Once per process, before any [`confine`].
pub fn install_handler() -> std::io::Result<()> {
    register_signal_handler(libc::SIGSYS, handle_forbidden_call)
        .map_err(|error| std::io::Error::from_raw_os_error(error.errno()))
}

/// Runs in a signal handler: only async-signal-safe calls, no allocation.
extern "C" fn handle_forbidden_call(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    /// Offset of `si_syscall` in `siginfo_t` on x86-64 (`include/uapi/asm-generic/siginfo.h`): after signo, errno,
    /// code, padding and `_call_addr`. The libc crate has no accessor.
    const SI_SYSCALL: usize = 24;
    // SAFETY: the kernel hands a valid siginfo_t, whose SIGSYS member has an int at this offset.
    let number = unsafe { info.cast::<u8>().add(SI_SYSCALL).cast::<c_int>().read_unaligned() };
    let mut text = *b"husk-vmm: forbidden system call 0000000000\n";
    let mut rest = number.unsigned_abs();
    for digit in text.iter_mut().rev().skip(1).take(10) {
        // The remainder is below 10.
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    // SAFETY: writes from a live array to standard error and ends the process; both are async-signal-safe.
    unsafe {
        libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        libc::_exit(FORBIDDEN_EXIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_filter() {
        for role in [Role::Main, Role::Vcpu, Role::Device, Role::Files] {
            assert!(!program(role).unwrap().is_empty());
        }
    }

    #[test]
    fn the_ioctl_numbers_are_those_of_the_headers() {
        let io = |nr: u64| 0xae00 | nr;
        let iow = |nr: u64, size: usize| (1 << 30) | (u64::try_from(size).unwrap() << 16) | io(nr);
        assert_eq!(KVM_RUN, io(0x80));
        assert_eq!(KVM_IRQFD, iow(0x76, size_of::<kvm_bindings::kvm_irqfd>()));
        assert_eq!(KVM_IOEVENTFD, iow(0x79, size_of::<kvm_bindings::kvm_ioeventfd>()));
    }
}
