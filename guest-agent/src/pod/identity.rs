//! What makes a clone of the template this pod: randomness, time, name, files, sysctls, shared memory.

use std::path::{Path, PathBuf};

use husk_agent_api::v1::ResumeRequest;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::time::{ClockId, Timespec};

use crate::error::{Context, Error, Result};
use crate::paths;

/// Least randomness that a clone may start with, in bytes.
const MIN_ENTROPY: usize = 32;
/// Most that is taken.
const MAX_ENTROPY: usize = 4096;
/// Size of /dev/shm when the request has none, as container runtimes have it.
const DEFAULT_SHM: u64 = 64 << 20;
/// `HOST_NAME_MAX`.
const MAX_HOSTNAME: usize = 64;

/// The pod's files, by the name that a `PodFile` mount gives.
pub const POD_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Checks every field before anything is changed.
pub fn check(request: &ResumeRequest) -> Result<()> {
    let length = request.entropy.len();
    if !(MIN_ENTROPY..=MAX_ENTROPY).contains(&length) {
        return Err(Error::invalid(format!("entropy: {length} bytes are not within {MIN_ENTROPY} to {MAX_ENTROPY}")));
    }
    let name = &request.hostname;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > MAX_HOSTNAME || !name.bytes().all(legal) {
        return Err(Error::invalid(format!("hostname: {name:?} is not a host name of at most {MAX_HOSTNAME} bytes")));
    }
    for (name, value) in &request.sysctls {
        sysctl_path(name)?;
        if value.len() > 4096 || value.contains('\0') {
            return Err(Error::invalid(format!("sysctls: the value of {name} is too long or contains a NUL byte")));
        }
    }
    if let Some(resources) = &request.resources {
        crate::cgroup::limits::Limits::new(resources)?;
    }
    Ok(())
}

/// Path below /proc/sys of a sysctl in either notation: `net.ipv4.ip_forward` or `net/ipv4/conf/eth0.1/mtu`.
fn sysctl_path(name: &str) -> Result<PathBuf> {
    let bad = || Error::invalid(format!("sysctls: {name:?} is not a sysctl's name"));
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/' | b'_' | b'-' | b':' | b'@');
    if name.is_empty() || name.len() > 256 || !name.bytes().all(legal) {
        return Err(bad());
    }
    // sysctl(8): whichever separator comes first is the separator, the other one stands for itself swapped.
    let path = match name.find(['.', '/']) {
        Some(at) if name.as_bytes().get(at) == Some(&b'.') => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    };
    if path.split('/').any(|component| component.is_empty() || component == "." || component == "..") {
        return Err(bad());
    }
    Ok(PathBuf::from(path))
}

/// Mixes in the host's randomness and sets the clock: before anything else may draw on either.
pub fn seed(request: &ResumeRequest) -> Result<()> {
    let random = std::fs::File::options().write(true).open("/dev/urandom").on("open", "/dev/urandom")?;
    crate::sys::add_entropy(&random, &request.entropy).on("ioctl RNDADDENTROPY", "/dev/urandom")?;
    let seconds = i64::try_from(request.wall_clock_ns / 1_000_000_000);
    let nanoseconds = i64::try_from(request.wall_clock_ns % 1_000_000_000);
    if let (Ok(tv_sec), Ok(tv_nsec)) = (seconds, nanoseconds) {
        rustix::time::clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec })
            .on("clock_settime", format_args!("{} ns", request.wall_clock_ns))?;
    }
    Ok(())
}

/// Names the pod, writes its files and sysctls, makes its shared memory. May be repeated after a failure.
pub fn name(request: &ResumeRequest) -> Result<()> {
    rustix::system::sethostname(request.hostname.as_bytes()).on("sethostname", &request.hostname)?;
    if !request.domainname.is_empty() {
        rustix::system::setdomainname(request.domainname.as_bytes()).on("setdomainname", &request.domainname)?;
    }
    let hostname = format!("{}\n", request.hostname);
    for (name, content) in POD_FILES.iter().zip([&request.hosts[..], hostname.as_bytes(), &request.resolv_conf[..]]) {
        let path = Path::new(paths::POD_FILES).join(name);
        std::fs::write(&path, content).on("write", path.display())?;
    }
    for (name, value) in &request.sysctls {
        write_sysctl(name, value)?;
    }
    match rustix::mount::unmount(paths::SHM, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno).on("umount2", paths::SHM),
    }
    let size = if request.shm_bytes == 0 { DEFAULT_SHM } else { request.shm_bytes };
    let data = std::ffi::CString::new(format!("mode=1777,size={size}")).map_err(|_| Error::invalid("shm_bytes"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("shm", paths::SHM, "tmpfs", flags, data.as_c_str()).on("mount", paths::SHM)
}

fn write_sysctl(name: &str, value: &str) -> Result<()> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    let root = rustix::fs::open("/proc/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .on("open", "/proc/sys")?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let fd = openat2(root, sysctl_path(name)?, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(|errno| Error::invalid(format!("sysctls: {name}: {errno}; this kernel may not have it")))?;
    rustix::io::write(fd, value.as_bytes())
        .map(drop)
        .map_err(|errno| Error::invalid(format!("sysctls: {name} = {value:?}: {errno}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ResumeRequest {
        ResumeRequest { entropy: vec![7; 32], hostname: "web-0".to_owned(), ..ResumeRequest::default() }
    }

    #[test]
    fn a_good_request_passes() {
        check(&request()).unwrap();
    }

    #[test]
    fn a_clone_without_randomness_is_refused() {
        let error = check(&ResumeRequest { entropy: vec![7; 31], ..request() }).unwrap_err();
        assert!(error.to_string().starts_with("entropy"), "{error}");
    }

    #[test]
    fn host_names_are_checked() {
        for bad in ["", "a b", "a/b", "a\n", &"a".repeat(65)] {
            assert!(check(&ResumeRequest { hostname: bad.to_owned(), ..request() }).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sysctl_names_become_paths_below_proc_sys() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward").unwrap(), Path::new("net/ipv4/ip_forward"));
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.mtu").unwrap(), Path::new("net/ipv4/conf/eth0.1/mtu"));
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/mtu").unwrap(), Path::new("net/ipv4/conf/eth0.1/mtu"));
        for bad in ["", "..", "a..b", "/etc/passwd", "net/../../etc", "a b", "kernel.", "a\0b"] {
            assert!(sysctl_path(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_sysctl_name_leaves_proc_sys(name in ".{0,40}") {
            if let Ok(path) = sysctl_path(&name) {
                let normal = |c| matches!(c, std::path::Component::Normal(_));
                proptest::prop_assert!(path.components().all(normal));
            }
        }
    }
}
