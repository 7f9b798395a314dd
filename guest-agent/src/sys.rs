//! Thin, safe wrappers of the system calls that no crate in use offers. Nothing here knows of pods or containers.

mod project;

pub use project::{ProjectUsage, project, project_usage, set_project, set_project_quota};

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value >= 0 { Ok(value) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
    /// With `MOUNT_ATTR_IDMAP`: the user namespace whose maps the mount has.
    pub userns_fd: u64,
}

/// mount_setattr(2) on the mount that `mount` is the root of; with `recursive`, on those below it too.
pub fn mount_setattr(mount: impl AsFd, attributes: &MountAttr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated literal; `attributes` is a live `struct mount_attr` of the length given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttr>(),
        )
    })
    .map(|_| ())
}

/// Moves CLOCK_REALTIME at once (adjtimex(2), `ADJ_SETOFFSET`).
pub fn step_clock(offset_ns: i64) -> Result<()> {
    // SAFETY: all-zero is a valid `timex`.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    // The nanoseconds are never negative: -1.5 s is -2 s and 0.5 s.
    change.time.tv_sec = offset_ns.div_euclid(1_000_000_000);
    change.time.tv_usec = offset_ns.rem_euclid(1_000_000_000);
    adjtimex(&mut change)
}

/// Lets CLOCK_REALTIME run a little faster or slower until it has moved by so many microseconds (adjtimex(2),
/// `ADJ_OFFSET_SINGLESHOT`); replaces what is left of an earlier call.
pub fn slew_clock(offset_us: i64) -> Result<()> {
    // SAFETY: all-zero is a valid `timex`.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_OFFSET_SINGLESHOT;
    change.offset = offset_us;
    adjtimex(&mut change)
}

fn adjtimex(change: &mut libc::timex) -> Result<()> {
    // SAFETY: `change` is a live `struct timex`, which the kernel reads and fills in.
    check(unsafe { libc::adjtimex(change) }.into()).map(|_| ())
}

/// Makes the loop device of this number (`LOOP_CTL_ADD` of linux/loop.h).
pub fn add_loop_device(control: impl AsFd, number: u32) -> Result<()> {
    const LOOP_CTL_ADD: libc::c_ulong = 0x4c80;
    // SAFETY: LOOP_CTL_ADD takes a number and touches no memory.
    check(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_ADD, libc::c_ulong::from(number)) }.into())
        .map(|_| ())
}

/// Gives back to the device what a mounted file system does not use (`FITRIM` of linux/fs.h).
pub fn trim(file_system: impl AsFd) -> Result<()> {
    const FITRIM: libc::c_ulong = 0xc018_5879;
    // `struct fstrim_range`: start, length, least extent.
    let mut range = [0_u64, u64::MAX, 0];
    // SAFETY: FITRIM reads and writes one `struct fstrim_range`, three 64-bit numbers.
    check(unsafe { libc::ioctl(file_system.as_fd().as_raw_fd(), FITRIM, range.as_mut_ptr()) }.into()).map(|_| ())
}

/// `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the condition holds.
    pub then: u8,
    /// Instructions to skip when it does not.
    pub otherwise: u8,
    /// Operand.
    pub value: u32,
}

/// seccomp(2), `SECCOMP_SET_MODE_FILTER`.
pub fn set_seccomp_filter(code: &[SockFilter], flags: u32) -> Result<()> {
    /// `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        length: u16,
        code: *const SockFilter,
    }
    let length = u16::try_from(code.len()).map_err(|_| Errno::TOOBIG)?;
    let program = Program { length, code: code.as_ptr() };
    // SAFETY: the call reads one `struct sock_fprog` and as many instructions as it says, both of which are live.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    })
    .map(|_| ())
}

/// clone3(2): a new mount namespace.
pub const CLONE_NEWNS: u64 = 0x0002_0000;
/// clone3(2): a new pid namespace.
pub const CLONE_NEWPID: u64 = 0x2000_0000;
/// clone3(2): the child's parent is the caller's parent.
pub const CLONE_PARENT: u64 = 0x0000_8000;

/// What [`clone3`] made.
#[derive(Debug)]
pub enum Cloned {
    /// We are the new process.
    Child,
    /// We are the caller.
    Parent {
        /// The new process, in the caller's pid namespace.
        pid: i32,
        /// Refers to it for ever.
        pidfd: OwnedFd,
    },
}

/// clone3(2) without shared memory, with `CLONE_PIDFD` added and, given a cgroup directory, `CLONE_INTO_CGROUP`.
///
/// With `CLONE_PARENT` the child's parent is the caller's parent.
///
/// # Safety
///
/// The caller must be single-threaded: in the child no other thread continues, so a lock that one of them held would
/// never be released.
pub unsafe fn clone3(flags: u64, cgroup: Option<RawFd>) -> Result<Cloned> {
    const CLONE_PIDFD: u64 = 0x1000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid `clone_args`.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | CLONE_PIDFD;
    arguments.pidfd = std::ptr::from_mut(&mut pidfd).expose_provenance() as u64;
    // A sibling's exit signal is that of the caller itself; naming one is refused.
    if flags & CLONE_PARENT == 0 {
        arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    }
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: `arguments` is valid and `pidfd` outlives the call; no CLONE_VM, so the child has its own stack copy.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) })?;
    match i32::try_from(pid) {
        Ok(0) => Ok(Cloned::Child),
        // SAFETY: the kernel has stored a new descriptor that nobody else owns.
        Ok(pid) => Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        Err(_) => Err(Errno::OVERFLOW),
    }
}

/// Marks every descriptor from 3 on close-on-exec.
pub fn close_all_on_exec() -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(|_| ())
}

/// Default action for every signal, none blocked: neither survives from the Rust runtime into a container.
pub fn reset_signals() {
    // SAFETY: all-zero is a `sigaction` of SIG_DFL and an empty mask; numbers that cannot be set fail without harm.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        for signal in 1..=64 {
            // The raw call: glibc keeps two real-time signals to itself.
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, std::ptr::null_mut::<u8>(), 8_usize);
        }
        let empty = 0_u64;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const empty,
            std::ptr::null_mut::<u8>(),
            8_usize,
        );
    }
}

/// An ended child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub pid: i32,
    /// How a shell counts it: the exit code, or 128 + signal.
    pub code: u8,
}

/// Some ended child of ours, or `pid` if it has ended. `peek` leaves it a zombie. `None`: there is none.
pub fn wait_child(pid: Option<i32>, peek: bool) -> Result<Option<Ended>> {
    let (kind, id) = match pid {
        None => (libc::P_ALL, 0),
        Some(pid) => (libc::P_PID, libc::id_t::try_from(pid).map_err(|_| Errno::INVAL)?),
    };
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL | if peek { libc::WNOWAIT } else { 0 };
    // SAFETY: all-zero is a valid siginfo_t, and what waitid leaves when there is nothing to report.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for writing.
    match check(libc::c_long::from(unsafe { libc::waitid(kind, id, &raw mut info, options) })) {
        Ok(_) => {}
        Err(Errno::CHILD) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    // SAFETY: after waitid the fields of a child's siginfo are the valid ones (or still zero).
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let code = if info.si_code == libc::CLD_EXITED { status & 0xff } else { (status & 0x7f).saturating_add(128) };
    Ok(Some(Ended { pid, code: u8::try_from(code).unwrap_or(u8::MAX) }))
}

/// Mixes `bytes` into the kernel's random pool, credits them in full and makes every generator draw anew.
pub fn add_entropy(random: impl AsFd, bytes: &[u8]) -> Result<()> {
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    let length = i32::try_from(bytes.len()).map_err(|_| Errno::INVAL)?;
    let bits = length.checked_mul(8).ok_or(Errno::INVAL)?;
    // struct rand_pool_info: entropy_count, buf_size, then the bytes, as 32-bit words.
    let mut pool = vec![bits, length];
    for chunk in bytes.chunks(4) {
        let mut word = [0_u8; 4];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        pool.push(i32::from_ne_bytes(word));
    }
    let fd = random.as_fd().as_raw_fd();
    // SAFETY: `pool` is a rand_pool_info with as many bytes as its buf_size says.
    check(libc::c_long::from(unsafe { libc::ioctl(fd, RNDADDENTROPY, pool.as_ptr()) }))?;
    // SAFETY: this ioctl has no argument.
    check(libc::c_long::from(unsafe { libc::ioctl(fd, RNDRESEEDCRNG) })).map(|_| ())
}

/// Sets IFF_UP on an interface of our network namespace, as `ip link set NAME up` does.
pub fn interface_up(name: &str) -> Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len().saturating_sub(1);
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // SAFETY: both requests take an ifreq and touch nothing beyond it; SIOCGIFFLAGS fills ifru_flags.
    unsafe {
        check(libc::c_long::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request)))?;
        request.ifr_ifru.ifru_flags |= i16::try_from(libc::IFF_UP).unwrap_or(1);
        check(libc::c_long::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)))?;
    }
    Ok(())
}

/// Writes one byte to an x86 I/O port.
pub fn write_port(port: u16, value: u8) -> Result<()> {
    // SAFETY: no pointers; asks for this one port.
    check(libc::c_long::from(unsafe { libc::ioperm(libc::c_ulong::from(port), 1, 1) }))?;
    // SAFETY: the port is ours by ioperm; `out` touches no memory.
    unsafe { std::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
    Ok(())
}

/// setrlimit(2) by number, for every limit that the kernel knows.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is valid for reading and no old value is asked for.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit64>())
    })
    .map(|_| ())
}

/// getrlimit(2) by number: soft and hard.
pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no new value is given, and `limit` is valid for writing.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<libc::rlimit64>(), &raw mut limit)
    })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// execve(2). Returns only when it failed.
pub fn execve(program: &CString, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| {
        strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect::<Vec<_>>()
    };
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with a null pointer and point to NUL-terminated strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    last_errno()
}

/// Sends signal `number` (0 to 64) to the process of `pidfd`.
pub fn send_signal(pidfd: impl AsFd, number: u32) -> Result<()> {
    // SAFETY: a null siginfo is allowed: the kernel fills one in as kill(2) does.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    })
    .map(|_| ())
}

/// An asynchronous view of a descriptor, which is made non-blocking. Must be called within the runtime.
pub fn watch(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    // SAFETY: the OwnedFd moves into the AsyncFd, so the descriptor stays open and the same as long as it is registered.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(std::io::Error::from)
}

/// Ends this process at once, running nothing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_child_is_seen_twice_when_peeked_at_first() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let peeked = loop {
            if let Some(ended) = wait_child(Some(pid), true).unwrap() {
                break ended;
            }
            std::thread::yield_now();
        };
        assert_eq!(peeked, Ended { pid, code: 7 });
        assert_eq!(wait_child(Some(pid), false).unwrap(), Some(Ended { pid, code: 7 }));
        assert_eq!(wait_child(Some(pid), false).unwrap(), None);
        assert!(child.wait().is_err());
    }
}
