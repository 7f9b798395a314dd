//! Checks of a tree that cannot be changed. `tests/src/behaviour/image.rs` makes it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use rustix::fs::{
    AtFlags, CWD, OFlags, RenameFlags, XattrFlags, accessat, getxattr, renameat_with, setxattr, utimensat,
};

use crate::kit::{Check, as_other, chmod, inode, kind, links, mode, open, owner, read, run};
use crate::sys::Map;
use crate::text::{see, show, words};

fn sum(name: &str) -> String {
    show(fs::read(name).map(|bytes| {
        // FNV-1a: enough to tell two contents apart.
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    }))
}

fn change(directory: &str) -> std::io::Result<String> {
    let path = |name: &str| format!("{directory}/{name}");
    words([
        see(fs::write(path("new"), "x")),
        see(fs::create_dir(path("new"))),
        see(symlink("x", path("new"))),
        see(crate::kit::fifo(&path("new"))),
    ])
}

pub(crate) fn all() -> Vec<Check> {
    CHECKS.to_vec()
}

const CHECKS: &[Check] = &[
    ("ro/content", || words([read("file"), sum("large"), sum("empty")])),
    ("ro/content-at-places", || {
        let file = open("large", OFlags::RDONLY)?;
        let mut room = [0; 16];
        let mut seen = Vec::new();
        for at in [0, 4095, 4096, 65_535, 299_990, 299_999, 300_000, 1 << 40] {
            seen.push(show(file.read_at(&mut room, at)));
        }
        Ok(seen.join(" "))
    }),
    ("ro/modes", || words([mode("file")?, mode("program")?, mode("directory")?, mode("sticky")?, mode("set-id")?])),
    ("ro/owners", || words([owner("file")?, owner("owned")?, owner("link")?])),
    ("ro/kinds", || words(["file", "directory", "link", "pipe", "none"].map(kind))),
    ("ro/links", || {
        words([
            links("hard-a")?.to_string(),
            (inode("hard-a")? == inode("hard-b")?).to_string(),
            links("directory")?.to_string(),
        ])
    }),
    ("ro/symbolic-links", || {
        let target = fs::read_link("link")?.display().to_string();
        words([target, read("link"), see(fs::metadata("dangling")), see(fs::metadata("loop"))])
    }),
    ("ro/times", || {
        let found = fs::metadata("file")?;
        Ok(format!("{}.{:09}", found.mtime(), found.mtime_nsec()))
    }),
    ("ro/listing", || {
        let mut names: Vec<_> =
            fs::read_dir("directory")?.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        words([
            names.len().to_string(),
            names.first().cloned().unwrap_or_default(),
            names.last().cloned().unwrap_or_default(),
        ])
    }),
    ("ro/long-name", || words([read(&"n".repeat(255)), see(fs::metadata("n".repeat(256)))])),
    ("ro/xattr", || {
        let mut room = [0; 100];
        let got = getxattr("attributed", "user.colour", &mut room[..]);
        words([
            show(got.map(|length| String::from_utf8_lossy(&room[..length]).into_owned())),
            see(getxattr("file", "user.colour", &mut room[..])),
        ])
    }),
    ("ro/permissions", || {
        Ok(as_other(|| words([see(fs::read("owned")), see(fs::read("file")), see(fs::read_dir("closed"))])))
    }),
    ("ro/mapped", || {
        let map = Map::new(&open("large", OFlags::RDONLY)?, 300_000, libc::PROT_READ, libc::MAP_SHARED)?;
        let bytes = fs::read("large")?;
        Ok((0..300_000).step_by(997).all(|at| map.get(at) == bytes[at]).to_string())
    }),
    ("ro/mapped-to-write", || {
        let file = open("file", OFlags::RDONLY)?;
        let private = Map::new(&file, 10, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
        private.put(0, b"mine");
        words([see(Map::shared(&file, 10).map(drop)), read("file")])
    }),
    ("ro/program", || words([run("program", &["identity"]), as_other(|| Ok(run("program", &["identity"])))])),
    ("ro/open-to-write", || {
        words([
            see(open("file", OFlags::WRONLY)),
            see(open("file", OFlags::RDWR)),
            see(open("file", OFlags::RDONLY | OFlags::TRUNC)),
            see(open("file", OFlags::WRONLY | OFlags::APPEND)),
            see(open("file", OFlags::RDONLY | OFlags::CREATE)),
            see(open(".", OFlags::RDWR | OFlags::TMPFILE)),
        ])
    }),
    ("ro/open-missing-to-write", || {
        words([see(open("none", OFlags::WRONLY)), see(open("none", OFlags::WRONLY | OFlags::CREATE))])
    }),
    ("ro/open-there-as-new", || Ok(see(open("file", OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)))),
    ("ro/open-pipe-to-write", || Ok(see(open("pipe", OFlags::RDWR | OFlags::NONBLOCK)))),
    ("ro/make", || words([change(".")?, change("directory")?])),
    ("ro/make-there-already", || words([see(fs::create_dir("directory")), see(symlink("x", "file"))])),
    ("ro/remove", || {
        words([see(fs::remove_file("file")), see(fs::remove_dir("directory")), see(fs::remove_file("none"))])
    }),
    ("ro/rename", || {
        words([
            see(fs::rename("file", "new")),
            see(fs::rename("file", "owned")),
            see(fs::rename("none", "new")),
            see(renameat_with(CWD, "file", CWD, "owned", RenameFlags::EXCHANGE)),
        ])
    }),
    ("ro/link", || words([see(fs::hard_link("file", "new")), see(fs::hard_link("none", "new"))])),
    ("ro/mode", || words([see(chmod("file", 0o600)), see(chmod("directory", 0o700))])),
    ("ro/owner", || {
        words([
            see(std::os::unix::fs::chown("file", Some(1), Some(1))),
            see(std::os::unix::fs::chown("file", None, None)),
        ])
    }),
    ("ro/truncate", || words([see(crate::sys::truncate("file", 0)), see(crate::sys::truncate("none", 0))])),
    ("ro/set-times", || {
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        Ok(see(utimensat(CWD, "file", &times, AtFlags::empty())))
    }),
    ("ro/set-xattr", || {
        words([
            see(setxattr("file", "user.x", b"x", XattrFlags::empty())),
            see(rustix::fs::removexattr("attributed", "user.colour")),
        ])
    }),
    ("ro/access-to-write", || {
        let ask = |name| see(accessat(CWD, name, rustix::fs::Access::WRITE_OK, AtFlags::empty()));
        words([ask("file"), ask("directory"), ask("pipe")])
    }),
    ("ro/allocate", || {
        let file = open("file", OFlags::RDONLY)?;
        Ok(see(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 100)))
    }),
    ("ro/read-leaves-atime", || {
        let before = fs::metadata("file")?.atime();
        open("file", OFlags::RDONLY)?.read_to_string(&mut String::new())?;
        Ok((fs::metadata("file")?.atime() == before).to_string())
    }),
    ("ro/pipe-carries", || {
        let reader = open("pipe", OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut writer = open("pipe", OFlags::WRONLY | OFlags::NONBLOCK)?;
        std::io::Write::write_all(&mut writer, b"through")?;
        let mut room = [0; 20];
        let count = (&reader).read(&mut room)?;
        Ok(String::from_utf8_lossy(&room[..count]).into_owned())
    }),
    ("ro/lock", || {
        let (a, b) = (open("file", OFlags::RDONLY)?, open("file", OFlags::RDONLY)?);
        let how = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        words([see(rustix::fs::flock(&a, how)), see(rustix::fs::flock(&b, how))])
    }),
    ("ro/statfs", || {
        let flags = rustix::fs::statvfs(".")?.f_flag;
        Ok(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY).to_string())
    }),
];
