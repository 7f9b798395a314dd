//! unlink(2), rmdir(2), and what stays usable after them.

use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, unlinkat};

use crate::kit::{Check, chmod, file, inode, links, open, read, there, update};
use crate::text::{see, words};

fn unlink(name: &str) -> String {
    see(unlinkat(CWD, name, AtFlags::empty()))
}

fn rmdir(name: &str) -> String {
    see(unlinkat(CWD, name, AtFlags::REMOVEDIR))
}

fn enter_removed() -> std::io::Result<()> {
    fs::create_dir("d")?;
    std::env::set_current_dir("d")?;
    fs::remove_dir("../d")
}

pub(crate) const CHECKS: &[Check] = &[
    ("unlink/file", || {
        file("f")?;
        words([unlink("f"), there("f").into(), unlink("f")])
    }),
    ("unlink/directory", || {
        fs::create_dir("d")?;
        words([unlink("d"), unlink("d/"), there("d").into()])
    }),
    ("unlink/slash-at-the-end", || {
        file("f")?;
        Ok(unlink("f/"))
    }),
    ("unlink/below-a-file", || {
        file("f")?;
        Ok(unlink("f/g"))
    }),
    ("unlink/link-not-target", || {
        file("f")?;
        symlink("f", "l")?;
        words([unlink("l"), there("l").into(), there("f").into()])
    }),
    ("unlink/one-of-two-names", || {
        file("a")?;
        fs::hard_link("a", "b")?;
        words([unlink("a"), links("b")?.to_string(), read("b")])
    }),
    ("unlink/while-open", || {
        fs::write("f", "still ")?;
        let mut file = open("f", OFlags::RDWR)?;
        fs::remove_file("f")?;
        file.seek(std::io::SeekFrom::End(0))?;
        file.write_all(b"here")?;
        file.rewind()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        words([text, file.metadata()?.nlink().to_string(), file.metadata()?.len().to_string()])
    }),
    ("unlink/while-open-then-changed", || {
        let file = update("f")?;
        fs::remove_file("f")?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        let changed = see(file.set_permissions(mode));
        let cut = see(file.set_len(1000));
        let found = file.metadata()?;
        words([changed, cut, format!("{:04o}", found.mode() & 0o7777), found.len().to_string()])
    }),
    ("unlink/while-open-then-made-anew", || {
        fs::write("f", "old")?;
        let mut old = open("f", OFlags::RDONLY)?;
        let number = inode("f")?;
        fs::remove_file("f")?;
        fs::write("f", "new")?;
        let mut text = String::new();
        old.read_to_string(&mut text)?;
        words([text, read("f"), (inode("f")? == number).to_string()])
    }),
    ("unlink/while-open-then-reopened", || {
        fs::write("f", "content")?;
        let file = open("f", OFlags::RDONLY)?;
        fs::remove_file("f")?;
        Ok(read(&format!("/proc/self/fd/{}", file.as_raw_fd())))
    }),
    ("unlink/while-open-then-linked", || {
        let file = update("f")?;
        fs::remove_file("f")?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(see(linkat(CWD, path.as_str(), CWD, "g", AtFlags::SYMLINK_FOLLOW)))
    }),
    ("unlink/file-of-mode-0000", || {
        file("f")?;
        chmod("f", 0)?;
        Ok(unlink("f"))
    }),
    ("rmdir/empty", || {
        fs::create_dir("d")?;
        words([rmdir("d"), there("d").into(), rmdir("d")])
    }),
    ("rmdir/full", || {
        fs::create_dir("d")?;
        file("d/f")?;
        words([rmdir("d"), see(fs::remove_file("d/f")), rmdir("d")])
    }),
    ("rmdir/file", || {
        file("f")?;
        words([rmdir("f"), rmdir("f/d")])
    }),
    ("rmdir/dots", || {
        fs::create_dir_all("d/e")?;
        words([rmdir("."), rmdir(".."), rmdir("d/."), rmdir("d/.."), rmdir("d/e/..")])
    }),
    ("rmdir/slash-at-the-end", || {
        fs::create_dir("d")?;
        Ok(rmdir("d/"))
    }),
    ("rmdir/link", || {
        fs::create_dir("d")?;
        symlink("d", "l")?;
        words([rmdir("l"), rmdir("l/"), there("d").into()])
    }),
    ("rmdir/of-the-current-directory", || {
        enter_removed()?;
        words([
            see(std::env::current_dir()),
            see(fs::metadata(".")),
            see(file("f")),
            see(fs::create_dir("e")),
            see(fs::read_dir(".").and_then(|entries| entries.collect::<Result<Vec<_>, _>>())),
        ])
    }),
    ("rmdir/then-up", || {
        enter_removed()?;
        words([see(std::env::set_current_dir("..")), there("d").into(), see(file("f"))])
    }),
    ("rmdir/counts-links", || {
        fs::create_dir("d")?;
        let directory = open("d", OFlags::RDONLY)?;
        fs::remove_dir("d")?;
        Ok(directory.metadata()?.nlink().to_string())
    }),
    ("rmdir/of-an-open-directory", || {
        fs::create_dir("d")?;
        let directory = open("d", OFlags::RDONLY)?;
        fs::remove_dir("d")?;
        let made = openat(&directory, "f", OFlags::WRONLY | OFlags::CREATE, Mode::from_raw_mode(0o644));
        let parent = openat(&directory, "..", OFlags::RDONLY, Mode::empty());
        words([see(made), see(parent)])
    }),
    ("rmdir/made-anew", || {
        fs::create_dir("d")?;
        let old = open("d", OFlags::RDONLY)?;
        fs::remove_dir("d")?;
        fs::create_dir("d")?;
        file("d/f")?;
        words([see(openat(&old, "f", OFlags::RDONLY, Mode::empty())), read("d/f")])
    }),
    ("remove/thousand-files", || {
        (0..1000).try_for_each(|n| file(&format!("f{n}")))?;
        let before = fs::read_dir(".")?.count();
        (0..1000).try_for_each(|n| fs::remove_file(format!("f{n}")))?;
        words([before.to_string(), fs::read_dir(".")?.count().to_string()])
    }),
    ("remove/tree", || {
        for a in 0..5 {
            for b in 0..5 {
                fs::create_dir_all(format!("t/{a}/{b}"))?;
                file(&format!("t/{a}/{b}/f"))?;
            }
        }
        words([see(fs::remove_dir_all("t")), there("t").into()])
    }),
];
