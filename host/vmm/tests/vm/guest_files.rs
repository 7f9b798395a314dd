//! What the guest does with a shared file system, as `file ...` commands. Paths are below [`MOUNT`].

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

const MOUNT: &str = "/shared";

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn c_string(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap()
}

fn mount(tag: &str) -> io::Result<()> {
    fs::create_dir_all(MOUNT)?;
    let (tag, target) = (c_string(tag), c_string(MOUNT));
    // SAFETY: live C strings and no data.
    check(unsafe { libc::mount(tag.as_ptr(), target.as_ptr(), c"virtiofs".as_ptr(), 0, std::ptr::null()) })
}

fn unmount() -> io::Result<()> {
    // SAFETY: a live C string.
    check(unsafe { libc::umount(c_string(MOUNT).as_ptr()) })
}

/// Changes the first bytes of a file through a shared mapping, and reads them back by another one.
fn map(path: &str, text: &str) -> io::Result<String> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = text.len();
    // SAFETY: a new mapping of an open file that is longer than `length`; it is used within that, and unmapped.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let address = libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), 0);
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let bytes = std::slice::from_raw_parts_mut(address.cast::<u8>(), length);
        bytes.copy_from_slice(text.as_bytes());
        let result = check(libc::msync(address, length, libc::MS_SYNC));
        libc::munmap(address, length);
        result?;
    }
    let mut read = vec![0; length];
    file.read_exact_at(&mut read, 0)?;
    Ok(String::from_utf8_lossy(&read).into_owned())
}

/// Two descriptors of one file: the second cannot lock what the first holds.
fn lock(path: &str) -> io::Result<String> {
    let (first, second) = (File::open(path)?, File::open(path)?);
    first.lock()?;
    let held = second.try_lock().is_err();
    first.unlock()?;
    Ok(format!("{held} {}", second.try_lock().is_ok()))
}

/// Makes a file without a name and links it.
fn temporary(directory: &str, name: &str, text: &str) -> io::Result<()> {
    let path = c_string(directory);
    // SAFETY: live C strings; the new descriptor is ours.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o600);
        check(fd)?;
        let mut file = File::from_raw_fd(fd);
        file.write_all(text.as_bytes())?;
        let from = c_string(&format!("/proc/self/fd/{fd}"));
        let to = c_string(&format!("{directory}/{name}"));
        check(libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW))
    }
}

/// Sets an extended attribute and reads it back.
fn attribute(path: &str, name: &str, value: &str) -> io::Result<String> {
    let (path, name) = (c_string(path), c_string(name));
    let mut buffer = [0_u8; 100];
    // SAFETY: live C strings and buffers of the given lengths.
    let length = unsafe {
        check(libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0))?;
        libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn sum(path: &str) -> io::Result<String> {
    let mut content = Vec::new();
    File::open(path)?.read_to_end(&mut content)?;
    Ok(content.iter().map(|byte| u64::from(*byte)).sum::<u64>().to_string())
}

/// The first byte of data and of the hole behind it.
fn holes(path: &str) -> io::Result<String> {
    let file = File::open(path)?;
    // SAFETY: plain system calls on a live descriptor.
    let (data, hole) = unsafe {
        let data = libc::lseek(file.as_raw_fd(), 0, libc::SEEK_DATA);
        (data, libc::lseek(file.as_raw_fd(), data, libc::SEEK_HOLE))
    };
    Ok(format!("{data} {hole}"))
}

fn exchange(one: &str, other: &str) -> io::Result<()> {
    let (one, other) = (c_string(one), c_string(other));
    // SAFETY: live C strings.
    let result = unsafe {
        let cwd = libc::AT_FDCWD;
        libc::syscall(libc::SYS_renameat2, cwd, one.as_ptr(), cwd, other.as_ptr(), libc::RENAME_EXCHANGE)
    };
    check(i32::try_from(result).unwrap())
}

/// Copies a file, removes an attribute of the copy, gives back its space, and makes and removes a FIFO and a directory.
fn odds_and_ends(directory: &str, file: &str) -> io::Result<String> {
    let (file, copy) = (format!("{directory}/{file}"), format!("{directory}/copy"));
    fs::copy(&file, &copy)?;
    let (path, fifo, new) = (c_string(&copy), c_string(&format!("{directory}/fifo")), format!("{directory}/new"));
    let mut names = [0_u8; 100];
    let opened = File::options().write(true).open(&copy)?;
    // SAFETY: live C strings and buffers of the given lengths; zeroes are a valid statvfs.
    let (listed, blocks) = unsafe {
        check(libc::setxattr(path.as_ptr(), c"user.a".as_ptr(), c"x".as_ptr().cast(), 1, 0))?;
        let listed = libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len());
        check(libc::removexattr(path.as_ptr(), c"user.a".as_ptr()))?;
        check(libc::fallocate(opened.as_raw_fd(), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 2))?;
        check(libc::mkfifo(fifo.as_ptr(), 0o600))?;
        check(libc::unlink(fifo.as_ptr()))?;
        let mut space: libc::statvfs = std::mem::zeroed();
        check(libc::statvfs(path.as_ptr(), &raw mut space))?;
        (listed, space.f_blocks)
    };
    opened.sync_data()?;
    opened.set_modified(std::time::UNIX_EPOCH)?;
    fs::create_dir(&new)?;
    File::open(&new)?.sync_all()?;
    fs::remove_dir(&new)?;
    fs::hard_link(&copy, &new)?;
    let modified = fs::metadata(&new)?.mtime();
    Ok(format!("{listed} {} {modified} {:?}", blocks > 0, fs::read_to_string(&copy)?))
}

/// Does one command; the words after `file`.
pub(crate) fn command(words: &[&str]) -> io::Result<String> {
    let at = |path: &str| format!("{MOUNT}/{path}");
    let ok = |()| "ok".to_owned();
    match words {
        ["mount", tag] => mount(tag).map(ok),
        ["unmount"] => unmount().map(ok),
        ["read", path] => fs::read_to_string(at(path)),
        ["write", path, text] => fs::write(at(path), text).map(ok),
        ["fill", path, mib] => {
            let mut file = File::create(at(path))?;
            for _ in 0..mib.parse().unwrap() {
                file.write_all(&vec![1; 1 << 20])?;
            }
            file.sync_all().map(ok)
        }
        ["append", path, text] => File::options().append(true).open(at(path))?.write_all(text.as_bytes()).map(ok),
        ["sum", path] => sum(&at(path)),
        ["count", path] => {
            let names: std::collections::BTreeSet<_> =
                fs::read_dir(at(path))?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
            Ok(names.len().to_string())
        }
        ["list", path] => {
            let mut names: Vec<_> =
                fs::read_dir(at(path))?.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            Ok(names.join(","))
        }
        ["mkdir", path] => fs::create_dir(at(path)).map(ok),
        ["rename", from, to] => fs::rename(at(from), at(to)).map(ok),
        ["exchange", one, other] => exchange(&at(one), &at(other)).map(ok),
        ["symlink", target, path] => symlink(target, at(path)).map(ok),
        ["remove", path] => fs::remove_file(at(path)).map(ok),
        ["chmod", path, mode] => {
            let mode = u32::from_str_radix(mode, 8).unwrap();
            fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).map(ok)
        }
        ["chown", path, uid, gid] => {
            std::os::unix::fs::chown(at(path), Some(uid.parse().unwrap()), Some(gid.parse().unwrap())).map(ok)
        }
        ["owner", path] => {
            let metadata = fs::symlink_metadata(at(path))?;
            Ok(format!("{}:{} {:o}", metadata.uid(), metadata.gid(), metadata.mode() & 0o7777))
        }
        ["map", path, text] => map(&at(path), text),
        ["lock", path] => lock(&at(path)),
        ["temporary", path, name, text] => temporary(&at(path), name, text).map(ok),
        ["attribute", path, name, value] => attribute(&at(path), name, value),
        ["sparse", path] => File::create(at(path))?.write_all_at(b"data", 1 << 20).map(ok),
        ["odds-and-ends", directory, file] => odds_and_ends(&at(directory), file),
        ["holes", path] => holes(&at(path)),
        other => Ok(format!("unknown file command {other:?}")),
    }
}
