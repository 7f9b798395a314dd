//! Which times change, and to what they can be set.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{AtFlags, CWD, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};

use crate::kit::{
    Check, OWNER, as_other, as_owner, chmod, compare, file, file_of, open, pause, times, times_of, update,
};
use crate::text::{see, words};

const fn at(seconds: i64, nanoseconds: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanoseconds }
}

const OMIT: Timespec = at(0, UTIME_OMIT);
const NOW: Timespec = at(0, UTIME_NOW);

fn set(name: &str, access: Timespec, modification: Timespec) -> String {
    let times = Timestamps { last_access: access, last_modification: modification };
    see(utimensat(CWD, name, &times, AtFlags::empty()))
}

/// Which of `atime mtime ctime` of something change by what is done after a pause.
fn changed(name: &str, body: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<String> {
    let before = times(name)?;
    pause();
    body()?;
    let after = times(name)?;
    // A file system that keeps attributes for a while may tell old ones; what is read later has to be right.
    let which = ["atime", "mtime", "ctime"].into_iter().zip(before.iter().zip(&after));
    let names: Vec<_> = which.filter(|(_, (before, after))| before != after).map(|(name, _)| name).collect();
    Ok(if names.is_empty() { "none".to_owned() } else { names.join(",") })
}

pub(crate) const CHECKS: &[Check] = &[
    ("times/set-exactly", || {
        file("f")?;
        let done = set("f", at(1_000_000_000, 123_456_789), at(1, 999_999_999));
        let found = fs::metadata("f")?;
        words([
            done,
            format!("{}.{:09} {}.{:09}", found.atime(), found.atime_nsec(), found.mtime(), found.mtime_nsec()),
        ])
    }),
    ("times/before-1970-and-after-2038", || {
        file("f")?;
        let done = set("f", at(-1_000_000, 0), at(5_000_000_000, 0));
        let found = fs::metadata("f")?;
        words([done, found.atime().to_string(), found.mtime().to_string()])
    }),
    ("times/one-left-alone", || {
        file("f")?;
        set("f", at(10, 0), at(20, 0));
        let first = set("f", OMIT, at(30, 0));
        let second = set("f", at(40, 0), OMIT);
        let found = fs::metadata("f")?;
        words([first, second, found.atime().to_string(), found.mtime().to_string(), set("f", OMIT, OMIT)])
    }),
    ("times/now", || {
        file("f")?;
        set("f", at(10, 0), at(10, 0));
        let done = set("f", NOW, OMIT);
        let found = fs::metadata("f")?;
        words([done, (found.atime() > 1_700_000_000).to_string(), found.mtime().to_string()])
    }),
    ("times/nonsense", || {
        file("f")?;
        words([set("f", at(0, 1_000_000_000), OMIT), set("f", OMIT, at(0, -5)), set("none", NOW, NOW)])
    }),
    ("times/who-may-set", || {
        file_of("f", 0o644, OWNER, OWNER)?;
        let try_both = || words([set("f", at(5, 0), at(5, 0)), set("f", NOW, NOW)]);
        words([as_owner(try_both), as_other(try_both)])
    }),
    ("times/who-may-set-of-writable", || {
        file_of("f", 0o666, OWNER, OWNER)?;
        Ok(as_other(|| words([set("f", at(5, 0), at(5, 0)), set("f", NOW, NOW), set("f", NOW, OMIT)])))
    }),
    ("times/of-a-new-file", || {
        file("f")?;
        let [access, modification, change] = times("f")?;
        words([(access.0 > 1_700_000_000).to_string(), (modification == change).to_string()])
    }),
    ("times/write", || {
        file("f")?;
        changed("f", || update("f")?.write_at(b"y", 0).map(drop))
    }),
    ("times/write-of-nothing", || {
        file("f")?;
        changed("f", || update("f")?.write_at(b"", 0).map(drop))
    }),
    ("times/read", || {
        file("f")?;
        changed("f", || open("f", OFlags::RDONLY)?.read(&mut [0; 1]).map(drop))
    }),
    ("times/read-without-atime", || {
        file("f")?;
        set("f", at(5, 0), OMIT);
        changed("f", || open("f", OFlags::RDONLY | OFlags::NOATIME)?.read(&mut [0; 1]).map(drop))
    }),
    ("times/truncate", || {
        file("f")?;
        changed("f", || update("f")?.set_len(5))
    }),
    ("times/truncate-to-the-same", || {
        file("f")?;
        changed("f", || update("f")?.set_len(1))
    }),
    ("times/open-truncating-an-empty-file", || {
        fs::write("f", "")?;
        changed("f", || open("f", OFlags::WRONLY | OFlags::TRUNC).map(drop))
    }),
    ("times/chmod", || {
        file("f")?;
        changed("f", || chmod("f", 0o600))
    }),
    ("times/chown", || {
        file("f")?;
        changed("f", || std::os::unix::fs::chown("f", Some(OWNER), None))
    }),
    ("times/link-and-unlink", || {
        file("f")?;
        let linked = changed("f", || fs::hard_link("f", "g"))?;
        words([linked, changed("f", || fs::remove_file("g"))?])
    }),
    ("times/rename", || {
        file("f")?;
        let before = times("f")?;
        pause();
        fs::rename("f", "g")?;
        let after = times("g")?;
        words([compare(&before[1], &after[1]), compare(&before[2], &after[2])])
    }),
    ("times/xattr", || {
        file("f")?;
        changed("f", || Ok(rustix::fs::setxattr("f", "user.x", b"x", rustix::fs::XattrFlags::empty())?))
    }),
    ("times/directory-when-a-file-is-made", || {
        fs::create_dir("d")?;
        changed("d", || file("d/f"))
    }),
    ("times/directory-when-a-file-is-removed", || {
        fs::create_dir("d")?;
        file("d/f")?;
        changed("d", || fs::remove_file("d/f"))
    }),
    ("times/directory-when-a-file-is-renamed", || {
        fs::create_dir("d")?;
        file("d/f")?;
        changed("d", || fs::rename("d/f", "d/g"))
    }),
    ("times/directory-when-a-file-is-written", || {
        fs::create_dir("d")?;
        file("d/f")?;
        changed("d", || fs::write("d/f", "changed"))
    }),
    ("times/map-written", || {
        file("f")?;
        changed("f", || {
            let map = crate::sys::Map::shared(&update("f")?, 4096)?;
            map.set(0, b'y');
            map.sync()
        })
    }),
    ("times/by-descriptor", || {
        file("f")?;
        let opened = open("f", OFlags::RDONLY)?;
        let times = Timestamps { last_access: at(7, 0), last_modification: at(8, 0) };
        rustix::fs::futimens(&opened, &times)?;
        let [access, modification, _] = times_of(&opened.metadata()?);
        words([access.0.to_string(), modification.0.to_string()])
    }),
];
