//! What checks are made of.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::{sys, text};

/// What was seen; an error is one of the check's preparations, not its result.
pub(crate) type Seen = io::Result<String>;

/// A name, `GROUP/WHAT`, and what is done.
pub(crate) type Check = (&'static str, fn() -> Seen);

/// Owner, and somebody else: ids that mean nothing.
pub(crate) const OWNER: u32 = 1000;
pub(crate) const OTHER: u32 = 2000;
pub(crate) const GROUP: u32 = 3000;

/// A file of one `x`.
pub(crate) fn file(name: &str) -> io::Result<()> {
    fs::write(name, "x")
}

pub(crate) fn file_of(name: &str, mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    file(name)?;
    own(name, mode, uid, gid)
}

pub(crate) fn directory_of(name: &str, mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    fs::create_dir(name)?;
    own(name, mode, uid, gid)
}

fn own(name: &str, mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    std::os::unix::fs::chown(name, Some(uid), Some(gid))?;
    chmod(name, mode)
}

pub(crate) fn chmod(name: &str, mode: u32) -> io::Result<()> {
    fs::set_permissions(name, fs::Permissions::from_mode(mode))
}

/// Permission bits, as `0644`.
pub(crate) fn mode(name: &str) -> io::Result<String> {
    Ok(format!("{:04o}", fs::symlink_metadata(name)?.mode() & 0o7777))
}

/// `UID:GID`.
pub(crate) fn owner(name: &str) -> io::Result<String> {
    let found = fs::symlink_metadata(name)?;
    Ok(format!("{}:{}", found.uid(), found.gid()))
}

pub(crate) fn links(name: &str) -> io::Result<u64> {
    Ok(fs::symlink_metadata(name)?.nlink())
}

pub(crate) fn inode(name: &str) -> io::Result<u64> {
    Ok(fs::symlink_metadata(name)?.ino())
}

pub(crate) fn there(name: &str) -> &'static str {
    if fs::symlink_metadata(name).is_ok() { "there" } else { "gone" }
}

pub(crate) fn read(name: &str) -> String {
    text::show(fs::read_to_string(name))
}

/// Opens with any flags.
pub(crate) fn open(name: impl rustix::path::Arg, flags: OFlags) -> io::Result<File> {
    Ok(openat(CWD, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)).map(File::from)?)
}

/// Opens to read and write; makes the file if need be.
pub(crate) fn update(name: &str) -> io::Result<File> {
    open(name, OFlags::RDWR | OFlags::CREATE)
}

pub(crate) fn fifo(name: &str) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    Ok(rustix::fs::mknodat(CWD, name, rustix::fs::FileType::Fifo, mode, 0)?)
}

/// Of what kind something is, a device with its numbers.
pub(crate) fn kind(name: &str) -> String {
    let found = fs::symlink_metadata(name).map(|found| {
        let number = found.rdev();
        let device = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
        match rustix::fs::FileType::from_raw_mode(found.mode()) {
            rustix::fs::FileType::CharacterDevice => format!("character {device}"),
            rustix::fs::FileType::BlockDevice => format!("block {device}"),
            other => format!("{other:?}"),
        }
    });
    text::show(found)
}

/// Does it as another user, in a process of its own.
pub(crate) fn as_user(uid: u32, gid: u32, groups: &[u32], body: impl FnOnce() -> Seen) -> String {
    sys::in_child(60, || {
        let seen = sys::become_user(uid, gid, groups).and_then(|()| body());
        seen.unwrap_or_else(|error| format!("broken: {}", text::name(&error)))
    })
}

/// The same as somebody who owns nothing.
pub(crate) fn as_other(body: impl FnOnce() -> Seen) -> String {
    as_user(OTHER, OTHER, &[], body)
}

pub(crate) fn as_owner(body: impl FnOnce() -> Seen) -> String {
    as_user(OWNER, OWNER, &[], body)
}

/// In a process of its own, as whoever we are.
pub(crate) fn elsewhere(body: impl FnOnce() -> Seen) -> String {
    sys::in_child(60, || body().unwrap_or_else(|error| format!("broken: {}", text::name(&error))))
}

/// A copy of this program.
pub(crate) fn program(name: &str, mode: u32) -> io::Result<()> {
    fs::copy("/proc/self/exe", name)?;
    chmod(name, mode)
}

/// What a program of this file system says.
pub(crate) fn run(name: impl AsRef<Path>, arguments: &[&str]) -> String {
    let path = std::env::current_dir().map(|directory| directory.join(name));
    let output = path.and_then(|path| Command::new(path).args(arguments).stderr(Stdio::null()).output());
    text::show(output.map(|output| String::from_utf8_lossy(&output.stdout).trim_end().to_owned()))
}

/// What `identity` says: effective ids and capabilities, as those of a set-id program are.
pub(crate) fn identity() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|rest| rest.split_whitespace().collect::<Vec<_>>()).unwrap_or_default()
    };
    let capable = field("CapEff:").first().is_some_and(|bits| bits.chars().any(|digit| digit != '0'));
    let second = |words: Vec<&str>| words.get(1).map_or_else(String::new, ToString::to_string);
    let word = if capable { "capable" } else { "incapable" };
    format!("uid {} gid {} {word}", second(field("Uid:")), second(field("Gid:")))
}

/// Long enough for every clock and for every cache that promises to believe something for a second.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(1200));
}

/// Whether two times differ: `changed` or `same`.
pub(crate) fn compare<T: PartialEq>(before: &T, after: &T) -> String {
    if before == after { "same" } else { "changed" }.to_owned()
}

/// Access, modification and change time.
pub(crate) fn times(name: &str) -> io::Result<[(i64, i64); 3]> {
    Ok(times_of(&fs::symlink_metadata(name)?))
}

pub(crate) fn times_of(found: &Metadata) -> [(i64, i64); 3] {
    [(found.atime(), found.atime_nsec()), (found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())]
}

/// Bytes that repeat nowhere soon: a lost or doubled block shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
