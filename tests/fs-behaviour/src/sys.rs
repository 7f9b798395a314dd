//! System calls that nobody wraps, and processes.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::{c_int, c_long, c_short};

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Runs `body` in a process of its own; gives what it says, or how the process ended.
pub(crate) fn in_child(patience: u32, body: impl FnOnce() -> String) -> String {
    let (mut reader, mut writer) = io::pipe().expect("a pipe");
    // SAFETY: this program has one thread wherever this is called.
    let child = check(unsafe { libc::fork() }).expect("a process");
    if child == 0 {
        drop(reader);
        // SAFETY: plain system calls. The panic message would stand between two results.
        unsafe {
            libc::alarm(patience);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        let seen = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| "broken: panic".to_owned());
        drop(writer.write_all(seen.as_bytes()));
        // SAFETY: ends this process without what the parent has registered to be done at its end.
        unsafe { libc::_exit(0) }
    }
    drop(writer);
    let mut seen = String::new();
    drop(reader.read_to_string(&mut seen));
    let status = wait(child);
    if libc::WIFSIGNALED(status) {
        return match libc::WTERMSIG(status) {
            libc::SIGALRM => "hangs".to_owned(),
            libc::SIGBUS => "SIGBUS".to_owned(),
            libc::SIGSEGV => "SIGSEGV".to_owned(),
            other => format!("signal {other}"),
        };
    }
    seen
}

fn wait(child: c_int) -> c_int {
    let mut status = 0;
    // SAFETY: `status` is ours.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 && errno_is(libc::EINTR) {}
    status
}

fn errno_is(number: c_int) -> bool {
    io::Error::last_os_error().raw_os_error() == Some(number)
}

/// A process that runs beside this one until it is waited for.
pub(crate) struct Beside(c_int);

pub(crate) fn beside(body: impl FnOnce()) -> Beside {
    // SAFETY: this program has one thread wherever this is called.
    let child = check(unsafe { libc::fork() }).expect("a process");
    if child == 0 {
        // SAFETY: plain system calls; the process ends here whatever the body does.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let fine = catch_unwind(AssertUnwindSafe(body)).is_ok();
            libc::_exit(i32::from(!fine))
        }
    }
    Beside(child)
}

impl Beside {
    /// Whether its body came to its end.
    pub(crate) fn ended_well(self) -> bool {
        wait(self.0) == 0
    }
}

/// Gives up root for good.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: a live array of that many ids. One thread, so no others have to follow.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))?;
    }
    Ok(())
}

/// Makes a write beyond RLIMIT_FSIZE an error instead of a death.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: sets a disposition of this process.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Whose record locks: a process's, or an open file description's.
#[derive(Clone, Copy)]
pub(crate) enum Locks {
    Process,
    Description,
}

/// Takes (`F_RDLCK`, `F_WRLCK`) or gives back (`F_UNLCK`) a record lock.
pub(crate) fn lock(fd: &File, whose: Locks, kind: c_int, start: i64, length: i64, wait: bool) -> io::Result<()> {
    let command = match (whose, wait) {
        (Locks::Process, false) => libc::F_SETLK,
        (Locks::Process, true) => libc::F_SETLKW,
        (Locks::Description, false) => libc::F_OFD_SETLK,
        (Locks::Description, true) => libc::F_OFD_SETLKW,
    };
    let mut lock = record(kind, start, length);
    // SAFETY: a live descriptor and structure.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut lock) }).map(drop)
}

/// Which lock would be in the way: its kind and whether its owner is `process`.
pub(crate) fn lock_in_the_way(fd: &File, start: i64, length: i64) -> io::Result<(c_short, i32)> {
    let mut lock = record(libc::F_WRLCK, start, length);
    // SAFETY: a live descriptor and structure.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETLK, &raw mut lock) })?;
    Ok((lock.l_type, lock.l_pid))
}

fn record(kind: c_int, start: i64, length: i64) -> libc::flock {
    // SAFETY: zeroes are a valid `flock`.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = c_short::try_from(kind).unwrap_or_default();
    lock.l_start = start;
    lock.l_len = length;
    lock
}

/// truncate(2), by path.
pub(crate) fn truncate(name: &str, length: i64) -> io::Result<()> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: a live C string.
    check(unsafe { libc::truncate(name.as_ptr(), length) }).map(drop)
}

pub(crate) fn sync_file_system(fd: &File) -> io::Result<()> {
    // SAFETY: a live descriptor.
    check(unsafe { libc::syncfs(fd.as_raw_fd()) }).map(drop)
}

/// getdents64(2) with so much room: how it ends.
pub(crate) fn list_into(fd: &File, room: usize) -> String {
    let mut bytes = vec![0_u8; room];
    // SAFETY: `room` bytes of ours.
    let result = unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), bytes.as_mut_ptr(), room) };
    check_long(result).map_or_else(|error| crate::text::name(&error), |count| count.to_string())
}

pub(crate) fn set_lease(fd: &File, kind: c_int) -> io::Result<()> {
    // SAFETY: a live descriptor.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, kind) }).map(drop)
}

pub(crate) fn duplicate(fd: &File) -> io::Result<File> {
    // SAFETY: a live descriptor; the new one is ours.
    unsafe { Ok(File::from_raw_fd(check(libc::dup(fd.as_raw_fd()))?)) }
}

const HANDLE_MOST: usize = 128;

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Handle {
    length: u32,
    kind: c_int,
    bytes: [u8; HANDLE_MOST],
}

pub(crate) fn name_to_handle(name: &CStr) -> io::Result<Handle> {
    let mut handle = Handle { length: 128, kind: 0, bytes: [0; HANDLE_MOST] };
    let mut mount: c_int = 0;
    // SAFETY: a live C string, and room for the longest handle, which `length` tells.
    check_long(unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, name.as_ptr(), &raw mut handle, &raw mut mount, 0)
    })?;
    Ok(handle)
}

pub(crate) fn open_handle(mount: BorrowedFd<'_>, handle: &Handle) -> io::Result<OwnedFd> {
    let mut handle = *handle;
    // SAFETY: live structures; the new descriptor is ours.
    unsafe {
        let fd = check_long(libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut handle,
            libc::O_RDONLY | libc::O_CLOEXEC,
        ))?;
        Ok(OwnedFd::from_raw_fd(c_int::try_from(fd).unwrap_or(-1)))
    }
}

/// `execveat(2)` of an open file; comes back only with an error.
pub(crate) fn exec_descriptor(fd: BorrowedFd<'_>, argument: &CStr) -> io::Error {
    let arguments = [c"program".as_ptr(), argument.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: lists that end with null, of live C strings.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// A mapped piece of a file, reached byte by byte, for it may change or vanish.
pub(crate) struct Map {
    start: *mut u8,
    length: usize,
}

impl Map {
    pub(crate) fn new(file: &File, length: usize, protection: c_int, flags: c_int) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { start: start.cast(), length })
        }
    }

    /// Shared, to read and to write.
    pub(crate) fn shared(file: &File, length: usize) -> io::Result<Self> {
        Self::new(file, length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)
    }

    fn at(&self, position: usize) -> *mut u8 {
        assert!(position < self.length, "within the mapping");
        // SAFETY: within the mapping.
        unsafe { self.start.add(position) }
    }

    pub(crate) fn get(&self, position: usize) -> u8 {
        // SAFETY: within the mapping; volatile, because others change it.
        unsafe { self.at(position).read_volatile() }
    }

    pub(crate) fn set(&self, position: usize, value: u8) {
        // SAFETY: within the mapping; volatile, because others look at it.
        unsafe { self.at(position).write_volatile(value) }
    }

    pub(crate) fn put(&self, position: usize, bytes: &[u8]) {
        bytes.iter().enumerate().for_each(|(n, byte)| self.set(position + n, *byte));
    }

    pub(crate) fn take(&self, position: usize, count: usize) -> Vec<u8> {
        (position..position + count).map(|n| self.get(n)).collect()
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        // SAFETY: our own mapping.
        check(unsafe { libc::msync(self.start.cast(), self.length, libc::MS_SYNC) }).map(drop)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody uses any more.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}
