//! Hard and symbolic links.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::{AtFlags, CWD, linkat, readlinkat_raw};

use crate::kit::{Check, file, inode, links, mode, read, there};
use crate::text::{see, show, words};

fn target(name: &str) -> String {
    show(fs::read_link(name).map(|target| target.display().to_string()))
}

fn link(from: &str, to: &str) -> String {
    see(fs::hard_link(from, to))
}

pub(crate) const CHECKS: &[Check] = &[
    ("link/is-the-same-file", || {
        fs::write("a", "one")?;
        fs::hard_link("a", "b")?;
        fs::write("b", "changed")?;
        words([read("a"), links("a")?.to_string(), (inode("a")? == inode("b")?).to_string()])
    }),
    ("link/in-another-directory", || {
        file("a")?;
        fs::create_dir("d")?;
        words([link("a", "d/b"), links("a")?.to_string(), see(fs::remove_file("a")), links("d/b")?.to_string()])
    }),
    ("link/errors", || {
        file("a")?;
        file("b")?;
        words([
            link("a", "b"),
            link("none", "c"),
            link("a", "none/c"),
            link("a/x", "c"),
            link("a", "c/"),
            link("a", "."),
        ])
    }),
    ("link/of-a-directory", || {
        fs::create_dir("d")?;
        words([link("d", "e"), link(".", "e")])
    }),
    ("link/of-a-symbolic-link", || {
        file("f")?;
        symlink("f", "l")?;
        let itself = link("l", "m");
        let followed = see(linkat(CWD, "l", CWD, "n", AtFlags::SYMLINK_FOLLOW));
        words([itself, target("m"), followed, links("f")?.to_string(), links("l")?.to_string()])
    }),
    ("link/of-a-dangling-link", || {
        symlink("none", "l")?;
        words([link("l", "m"), see(linkat(CWD, "l", CWD, "n", AtFlags::SYMLINK_FOLLOW))])
    }),
    ("link/of-a-fifo", || {
        crate::kit::fifo("p")?;
        words([link("p", "q"), links("q")?.to_string(), crate::kit::kind("q")])
    }),
    ("link/thousand-names", || {
        file("f")?;
        (0..1000).try_for_each(|n| fs::hard_link("f", format!("l{n}")))?;
        let all = links("f")?;
        (0..1000).try_for_each(|n| fs::remove_file(format!("l{n}")))?;
        words([all.to_string(), links("f")?.to_string()])
    }),
    ("link/mode-is-shared", || {
        file("a")?;
        fs::hard_link("a", "b")?;
        crate::kit::chmod("a", 0o4711)?;
        mode("b")
    }),
    ("symlink/tells-its-target", || {
        symlink("some/where", "l")?;
        let found = fs::symlink_metadata("l")?;
        words([target("l"), found.len().to_string(), mode("l")?, links("l")?.to_string()])
    }),
    ("symlink/any-target", || {
        symlink("/", "a")?;
        symlink(" \n", "b")?;
        symlink("../..", "c")?;
        words([target("a"), target("b").len().to_string(), target("c"), see(symlink("", "d"))])
    }),
    ("symlink/long-targets", || {
        let long = |length: usize, name: &str| see(symlink("t".repeat(length), name));
        let made = [long(59, "a"), long(60, "b"), long(1000, "c"), long(4095, "d"), long(4096, "e")];
        let lengths = ["a", "b", "c", "d"].map(|name| target(name).len().to_string());
        words([made.join(" "), lengths.join(" ")])
    }),
    ("symlink/there-already", || {
        file("f")?;
        symlink("none", "l")?;
        fs::create_dir("d")?;
        words([see(symlink("x", "f")), see(symlink("x", "l")), see(symlink("x", "d")), see(symlink("x", "none/l"))])
    }),
    ("symlink/dangling", || {
        symlink("none", "l")?;
        words([see(fs::metadata("l")), see(fs::symlink_metadata("l")), read("l")])
    }),
    ("symlink/to-itself", || {
        symlink("l", "l")?;
        symlink("b", "a")?;
        symlink("a", "b")?;
        words([see(fs::metadata("l")), see(fs::metadata("a")), see(fs::metadata("l/x")), see(file("a"))])
    }),
    ("symlink/chain-of-40", || {
        file("f")?;
        symlink("f", "l1")?;
        (2..=41).try_for_each(|n| symlink(format!("l{}", n - 1), format!("l{n}")))?;
        words([read("l40"), see(fs::metadata("l41"))])
    }),
    ("symlink/through-directories", || {
        fs::create_dir_all("a/b")?;
        fs::write("a/f", "found")?;
        symlink("a/b", "l")?;
        symlink("../f", "a/b/m")?;
        words([read("l/m"), read("l/../f"), see(fs::metadata("l/../b"))])
    }),
    ("symlink/slash-at-the-end", || {
        file("f")?;
        fs::create_dir("d")?;
        symlink("f", "l")?;
        symlink("d", "m")?;
        let kind = fs::symlink_metadata("m/")?.is_dir().to_string();
        words([see(fs::metadata("l/")), kind, see(fs::create_dir("m/")), see(fs::read_link("m/"))])
    }),
    ("symlink/readlink-of-others", || {
        file("f")?;
        fs::create_dir("d")?;
        words([target("f"), target("d"), target("none")])
    }),
    ("symlink/readlink-into-little-room", || {
        symlink("0123456789", "l")?;
        let mut room = [std::mem::MaybeUninit::uninit(); 4];
        let (got, _) = readlinkat_raw(CWD, "l", &mut room[..])?;
        Ok(String::from_utf8_lossy(got).into_owned())
    }),
    ("symlink/replaced-at-once", || {
        // As kubelet swaps `..data`.
        for version in ["1", "2"] {
            fs::create_dir(format!("..{version}"))?;
            fs::write(format!("..{version}/key"), version)?;
        }
        symlink("..1", "..data")?;
        symlink("..data/key", "key")?;
        let before = read("key");
        symlink("..2", "..tmp")?;
        fs::rename("..tmp", "..data")?;
        words([before, read("key"), there("..tmp").into()])
    }),
    ("symlink/times-are-its-own", || {
        file("f")?;
        symlink("f", "l")?;
        let before = crate::kit::times("f")?;
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec { tv_sec: 2, tv_nsec: 0 },
        };
        rustix::fs::utimensat(CWD, "l", &times, AtFlags::SYMLINK_NOFOLLOW)?;
        let found = fs::symlink_metadata("l")?;
        words([found.mtime().to_string(), crate::kit::compare(&before, &crate::kit::times("f")?)])
    }),
];
