//! rename(2) and the flags of renameat2(2).

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use crate::kit::{Check, file, inode, links, open, read, there};
use crate::text::{see, words};

fn flagged(from: &str, to: &str, flags: RenameFlags) -> String {
    see(renameat_with(CWD, from, CWD, to, flags))
}

fn rename(from: &str, to: &str) -> String {
    see(fs::rename(from, to))
}

pub(crate) const CHECKS: &[Check] = &[
    ("rename/to-a-new-name", || {
        fs::write("a", "content")?;
        let before = inode("a")?;
        words([rename("a", "b"), there("a").into(), read("b"), (inode("b")? == before).to_string()])
    }),
    ("rename/over-a-file", || {
        fs::write("a", "new")?;
        fs::write("b", "old")?;
        let mut old = open("b", OFlags::RDONLY)?;
        let done = rename("a", "b");
        let mut text = String::new();
        old.read_to_string(&mut text)?;
        words([done, there("a").into(), read("b"), text])
    }),
    ("rename/of-an-open-file", || {
        fs::write("a", "content")?;
        let mut opened = open("a", OFlags::RDONLY)?;
        fs::rename("a", "b")?;
        let mut text = String::new();
        opened.read_to_string(&mut text)?;
        Ok(text)
    }),
    ("rename/missing", || {
        file("f")?;
        words([rename("none", "f"), rename("f", "none/f"), rename("none/f", "g"), rename("", "g"), rename("f", "")])
    }),
    ("rename/below-a-file", || {
        file("f")?;
        file("g")?;
        words([rename("f/x", "y"), rename("g", "f/x")])
    }),
    ("rename/directory-over-empty", || {
        fs::create_dir("a")?;
        file("a/f")?;
        fs::create_dir("b")?;
        words([rename("a", "b"), there("a").into(), read("b/f")])
    }),
    ("rename/directory-over-full", || {
        fs::create_dir("a")?;
        fs::create_dir("b")?;
        file("b/f")?;
        words([rename("a", "b"), there("a").into()])
    }),
    ("rename/file-over-directory", || {
        file("f")?;
        fs::create_dir("d")?;
        Ok(rename("f", "d"))
    }),
    ("rename/directory-over-file", || {
        file("f")?;
        fs::create_dir("d")?;
        Ok(rename("d", "f"))
    }),
    ("rename/to-itself", || {
        file("f")?;
        fs::create_dir("d")?;
        words([rename("f", "f"), rename("d", "d"), there("f").into(), there("d").into()])
    }),
    ("rename/between-names-of-one-file", || {
        file("a")?;
        fs::hard_link("a", "b")?;
        words([rename("a", "b"), there("a").into(), there("b").into(), links("b")?.to_string()])
    }),
    ("rename/into-own-child", || {
        fs::create_dir_all("a/b")?;
        words([rename("a", "a/b/c"), rename("a", "a/c"), rename("a", "a/b")])
    }),
    ("rename/over-own-parent", || {
        fs::create_dir_all("a/b")?;
        Ok(rename("a/b", "a"))
    }),
    ("rename/dots", || {
        fs::create_dir("d")?;
        words([rename(".", "x"), rename("..", "x"), rename("d/.", "x"), rename("d", "."), rename("d", "..")])
    }),
    ("rename/slash-at-the-end", || {
        file("f")?;
        fs::create_dir("d")?;
        words([rename("f/", "g"), rename("f", "g/"), rename("d/", "e/"), there("e").into()])
    }),
    ("rename/of-a-link", || {
        file("f")?;
        symlink("f", "l")?;
        fs::rename("l", "m")?;
        words([fs::read_link("m")?.display().to_string(), there("f").into()])
    }),
    ("rename/over-a-link", || {
        fs::write("f", "target")?;
        fs::write("g", "other")?;
        symlink("f", "l")?;
        words([rename("g", "l"), read("l"), read("f"), fs::symlink_metadata("l")?.is_symlink().to_string()])
    }),
    ("rename/file-to-another-directory", || {
        fs::create_dir("a")?;
        fs::create_dir("b")?;
        file("a/f")?;
        words([rename("a/f", "b/g"), there("a/f").into(), read("b/g")])
    }),
    ("rename/directory-to-another", || {
        fs::create_dir_all("a/d")?;
        fs::create_dir("b")?;
        let done = rename("a/d", "b/d");
        let parent = inode("b/d/..")? == inode("b")?;
        words([done, links("a")?.to_string(), links("b")?.to_string(), parent.to_string()])
    }),
    ("rename/tree", || {
        fs::create_dir_all("a/b/c")?;
        fs::write("a/b/c/f", "deep")?;
        words([rename("a", "z"), read("z/b/c/f"), there("a").into()])
    }),
    ("rename/many-over-one", || {
        for round in 0..200 {
            fs::write("next", round.to_string())?;
            fs::rename("next", "current")?;
        }
        words([read("current"), fs::read_dir(".")?.count().to_string()])
    }),
    ("rename/no-replace", || {
        fs::write("a", "a")?;
        fs::write("b", "b")?;
        let flags = RenameFlags::NOREPLACE;
        words([flagged("a", "b", flags), read("b"), flagged("a", "c", flags), read("c"), flagged("b", "b", flags)])
    }),
    ("rename/exchange-files", || {
        fs::write("a", "a")?;
        fs::write("b", "b")?;
        words([flagged("a", "b", RenameFlags::EXCHANGE), read("a"), read("b")])
    }),
    ("rename/exchange-file-and-directory", || {
        fs::write("a", "a")?;
        fs::create_dir("d")?;
        file("d/f")?;
        words([flagged("a", "d", RenameFlags::EXCHANGE), read("d"), read("a/f")])
    }),
    ("rename/exchange-link-and-directory", || {
        symlink("none", "l")?;
        fs::create_dir("d")?;
        let done = flagged("l", "d", RenameFlags::EXCHANGE);
        words([done, fs::symlink_metadata("l")?.is_dir().to_string(), fs::read_link("d")?.display().to_string()])
    }),
    ("rename/exchange-in-other-directories", || {
        fs::create_dir_all("a/x")?;
        fs::create_dir("b")?;
        file("b/y")?;
        words([flagged("a/x", "b/y", RenameFlags::EXCHANGE), links("a")?.to_string(), links("b")?.to_string()])
    }),
    ("rename/exchange-with-missing", || {
        file("a")?;
        Ok(flagged("a", "none", RenameFlags::EXCHANGE))
    }),
    ("rename/exchange-with-own-child", || {
        fs::create_dir_all("a/b")?;
        Ok(flagged("a", "a/b", RenameFlags::EXCHANGE))
    }),
    ("rename/exchange-and-no-replace", || {
        file("a")?;
        file("b")?;
        Ok(flagged("a", "b", RenameFlags::EXCHANGE | RenameFlags::NOREPLACE))
    }),
    ("rename/leaves-a-whiteout", || {
        file("a")?;
        let done = flagged("a", "b", RenameFlags::WHITEOUT);
        words([done, crate::kit::kind("a"), crate::kit::kind("b")])
    }),
];
