//! The profile that a container has when nobody says otherwise: containerd's default in effect, for x86_64 and the
//! guest's kernel. What it keeps from a container is in the table [`GRANTED_BY`] or in none.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};

/// Calls that every container may make, by subject.
#[rustfmt::skip]
const ALWAYS: &[&[&str]] = &[
    // Files: opening, reading, writing.
    &[
        "open", "openat", "openat2", "creat", "close", "close_range", "read", "readv", "pread64", "preadv",
        "preadv2", "write", "writev", "pwrite64", "pwritev", "pwritev2", "lseek", "sendfile", "splice", "tee",
        "vmsplice", "copy_file_range", "readahead", "fadvise64", "fallocate", "truncate", "ftruncate", "fsync",
        "fdatasync", "sync", "syncfs", "sync_file_range", "flock", "fcntl", "ioctl", "dup", "dup2", "dup3", "pipe",
        "pipe2", "cachestat",
    ],
    // Files: names, attributes, directories.
    &[
        "stat", "lstat", "fstat", "newfstatat", "statx", "statfs", "fstatfs", "statmount", "listmount", "access",
        "faccessat", "faccessat2", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "fchownat",
        "lchown", "utime", "utimes", "futimesat", "utimensat", "umask", "mkdir", "mkdirat", "rmdir", "mknod",
        "mknodat", "link", "linkat", "symlink", "symlinkat", "readlink", "readlinkat", "unlink", "unlinkat",
        "rename", "renameat", "renameat2", "getdents", "getdents64", "getcwd", "chdir", "fchdir",
        "name_to_handle_at",
    ],
    &[
        "getxattr", "lgetxattr", "fgetxattr", "getxattrat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat",
        "listxattr", "llistxattr", "flistxattr", "listxattrat", "removexattr", "lremovexattr", "fremovexattr",
        "removexattrat",
    ],
    // Waiting for events.
    &[
        "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old",
        "epoll_wait", "epoll_wait_old", "epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "signalfd",
        "signalfd4", "inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "fanotify_mark",
    ],
    // Asynchronous reading and writing; not io_uring, whose operations no filter sees.
    &["io_setup", "io_destroy", "io_submit", "io_cancel", "io_getevents", "io_pgetevents"],
    // Memory.
    &[
        "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "mincore", "msync", "mlock", "mlock2", "mlockall",
        "munlock", "munlockall", "mseal", "remap_file_pages", "memfd_create", "memfd_secret", "membarrier",
        "map_shadow_stack", "pkey_alloc", "pkey_free", "pkey_mprotect", "process_mrelease",
    ],
    // Processes and threads. `clone` and `clone3` have rules of their own.
    &[
        "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "kill", "tkill", "tgkill",
        "pidfd_open", "pidfd_send_signal", "set_tid_address", "set_robust_list", "get_robust_list", "rseq",
        "set_thread_area", "get_thread_area", "arch_prctl", "modify_ldt", "prctl", "seccomp",
        "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "uretprobe", "restart_syscall",
    ],
    // As of Linux 4.8 a traced call is filtered after its tracer has had it, so tracing opens no way around the filter.
    &["ptrace", "process_vm_readv", "process_vm_writev"],
    &["futex", "futex_waitv", "futex_wait", "futex_wake", "futex_requeue"],
    &[
        "rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "rt_sigreturn",
        "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack", "pause", "alarm",
    ],
    // Who and how much.
    &[
        "getpid", "getppid", "gettid", "getpgid", "getpgrp", "setpgid", "getsid", "setsid", "getuid", "geteuid",
        "getgid", "getegid", "getgroups", "getresuid", "getresgid", "setuid", "setgid", "setreuid", "setregid",
        "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "capget", "capset", "getrlimit", "setrlimit",
        "prlimit64", "getrusage", "getpriority", "setpriority", "ioprio_get", "ioprio_set", "sysinfo", "uname",
        "times", "getcpu", "getrandom",
    ],
    &[
        "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getattr", "sched_setattr", "sched_getparam",
        "sched_setparam", "sched_getscheduler", "sched_setscheduler", "sched_get_priority_max",
        "sched_get_priority_min", "sched_rr_get_interval",
    ],
    // Time. Adjusting it needs CAP_SYS_TIME; reading how it is adjusted needs the same calls.
    &[
        "time", "gettimeofday", "clock_gettime", "clock_getres", "clock_nanosleep", "clock_adjtime", "adjtimex",
        "nanosleep", "getitimer", "setitimer", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
        "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime",
    ],
    // Sockets. `socket` has a rule of its own.
    &[
        "socketpair", "bind", "listen", "accept", "accept4", "connect", "shutdown", "getsockname", "getpeername",
        "getsockopt", "setsockopt", "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg",
    ],
    // System V and POSIX IPC.
    &[
        "msgget", "msgctl", "msgsnd", "msgrcv", "semget", "semctl", "semop", "semtimedop", "shmget", "shmctl",
        "shmat", "shmdt", "mq_open", "mq_unlink", "mq_notify", "mq_getsetattr", "mq_timedsend", "mq_timedreceive",
    ],
];

/// Calls that come with a capability.
#[rustfmt::skip]
const GRANTED_BY: &[(Capability, &[&str])] = &[
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (
        Capability::SysAdmin,
        &[
            "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie",
            "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount",
            "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns",
            "syslog", "umount2", "unshare",
        ],
    ),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysModule, &["init_module", "finit_module", "delete_module"]),
    (Capability::SysPacct, &["acct"]),
    (Capability::SysPtrace, &["kcmp", "pidfd_getfd", "process_madvise"]),
    (Capability::SysRawio, &["iopl", "ioperm"]),
    (Capability::SysTime, &["settimeofday", "clock_settime"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (Capability::SysNice, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (Capability::Syslog, &["syslog"]),
    (Capability::Bpf, &["bpf"]),
    (Capability::Perfmon, &["perf_event_open"]),
];

/// `CLONE_NEW*` of clone(2), but for time namespaces, which only unshare(2) makes.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;
const ENOSYS: u32 = 38;
/// `personality(2)`: Linux, 32 bits of address space less a page, each with and without `UNAME26`; and "which is it?".
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The default profile of a container with these capabilities in its bounding set.
#[must_use]
pub fn runtime_default(bounding: &Capabilities) -> LinuxSeccomp {
    let mut calls: Vec<LinuxSyscall> = ALWAYS.iter().map(|names| allow(names)).collect();
    calls.extend(allow_when("socket", LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK));
    for personality in PERSONALITIES {
        calls.extend(allow_when("personality", LinuxSeccompOperator::ScmpCmpEq, personality));
    }
    for (capability, names) in GRANTED_BY {
        if bounding.contains(capability) {
            calls.push(allow(names));
        }
    }
    if !bounding.contains(&Capability::SysAdmin) {
        calls.extend(allow_when("clone", LinuxSeccompOperator::ScmpCmpMaskedEq, NEW_NAMESPACES));
        // Its flags are in memory, which no filter sees; a C library that is told so uses clone.
        let mut clone3 = call(&["clone3"], LinuxSeccompAction::ScmpActErrno);
        clone3.set_errno_ret(Some(ENOSYS));
        calls.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]))
        .set_syscalls(Some(calls));
    profile
}

fn call(names: &[&str], action: LinuxSeccompAction) -> LinuxSyscall {
    let mut call = LinuxSyscall::default();
    call.set_names(names.iter().map(|name| (*name).to_owned()).collect()).set_action(action);
    call
}

fn allow(names: &[&str]) -> LinuxSyscall {
    call(names, LinuxSeccompAction::ScmpActAllow)
}

/// Allowed when the first argument is as told.
fn allow_when(name: &str, operator: LinuxSeccompOperator, value: u64) -> Option<LinuxSyscall> {
    let arg = LinuxSeccompArgBuilder::default().index(0_usize).op(operator).value(value).build().ok()?;
    let mut call = allow(&[name]);
    call.set_args(Some(vec![arg]));
    Some(call)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::policy;

    /// Calls that no capability gives: keys that are not confined to a namespace, swap, kexec, io_uring, obsolete ones.
    #[rustfmt::skip]
    const WITHHELD: [&str; 32] = [
        "_sysctl", "add_key", "afs_syscall", "create_module", "file_getattr", "file_setattr", "get_kernel_syms",
        "getpmsg", "io_uring_enter", "io_uring_register", "io_uring_setup", "kexec_file_load", "kexec_load",
        "keyctl", "migrate_pages", "move_pages", "nfsservctl", "open_tree_attr", "pivot_root", "putpmsg",
        "query_module", "request_key", "security", "swapoff", "swapon", "sysfs", "tuxcall", "uprobe", "uselib",
        "userfaultfd", "ustat", "vserver",
    ];

    fn given() -> BTreeSet<&'static str> {
        let named = ["socket", "personality", "clone", "clone3"];
        let by_capability = GRANTED_BY.iter().flat_map(|(_, names)| names.iter().copied());
        ALWAYS.iter().flat_map(|names| names.iter().copied()).chain(by_capability).chain(named).collect()
    }

    #[test]
    fn every_name_is_a_call_of_the_architecture() {
        for name in given() {
            assert!(policy::number(name).is_some(), "{name}");
        }
    }

    #[test]
    fn every_call_of_the_architecture_is_given_or_withheld_on_purpose() {
        let given = given();
        let all = (0..512).filter_map(syscalls::x86_64::Sysno::new);
        let missing: Vec<_> =
            all.map(|call| call.name()).filter(|name| !given.contains(name) && !WITHHELD.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
