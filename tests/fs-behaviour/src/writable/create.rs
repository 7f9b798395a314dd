//! Making and opening things: the flags of open(2), directories, files without a name.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, mkdirat};

use crate::kit::{Check, elsewhere, file, links, mode, open, read, there, update};
use crate::text::{see, show, words};

const NEW: OFlags = OFlags::CREATE.union(OFlags::EXCL).union(OFlags::WRONLY);

fn nameless(flags: OFlags) -> std::io::Result<File> {
    open(".", OFlags::TMPFILE | flags)
}

fn give_name(file: &File, name: &str) -> String {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    see(linkat(CWD, path.as_str(), CWD, name, AtFlags::SYMLINK_FOLLOW))
}

fn directory(name: &str) -> String {
    see(mkdirat(CWD, name, Mode::from_raw_mode(0o755)))
}

pub(crate) const CHECKS: &[Check] = &[
    ("open/new-but-there", || {
        file("f")?;
        fs::create_dir("d")?;
        symlink("none", "l")?;
        words([see(open("f", NEW)), see(open("d", NEW)), see(open("l", NEW)), there("none").to_owned()])
    }),
    ("open/create-through-a-dangling-link", || {
        symlink("target", "l")?;
        words([see(fs::write("l", "through")), read("target")])
    }),
    ("open/create-in-a-missing-directory", || words([see(open("d/f", NEW)), see(open("", NEW))])),
    ("open/below-a-file", || {
        file("f")?;
        words([see(open("f/g", OFlags::RDONLY)), see(open("f/g", NEW)), see(open("f/.", OFlags::RDONLY))])
    }),
    ("open/slash-at-the-end", || {
        file("f")?;
        words([see(open("f/", OFlags::RDONLY)), see(open("new/", NEW)), see(open("none/", OFlags::RDONLY))])
    }),
    ("open/no-follow", || {
        file("f")?;
        fs::create_dir("d")?;
        symlink("f", "l")?;
        symlink("d", "m")?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
        words([
            see(open("f", flags)),
            see(open("l", flags)),
            see(open("m", flags)),
            see(open("m", flags | OFlags::DIRECTORY)),
            see(open("m/.", flags)),
        ])
    }),
    ("open/must-be-a-directory", || {
        file("f")?;
        fs::create_dir("d")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        words([see(open("f", flags)), see(open("d", flags)), see(open("none", flags))])
    }),
    ("open/directory-to-write", || {
        fs::create_dir("d")?;
        words([
            see(open("d", OFlags::WRONLY)),
            see(open("d", OFlags::RDWR)),
            see(open("d", OFlags::RDONLY | OFlags::TRUNC)),
            see(open("d", OFlags::RDONLY | OFlags::CREATE)),
        ])
    }),
    ("open/directory-read-as-a-file", || {
        fs::create_dir("d")?;
        Ok(see(open("d", OFlags::RDONLY)?.read(&mut [0; 10])))
    }),
    ("open/truncates", || {
        fs::write("f", "content")?;
        crate::kit::chmod("f", 0o640)?;
        open("f", OFlags::WRONLY | OFlags::TRUNC)?;
        words([fs::metadata("f")?.len().to_string(), mode("f")?])
    }),
    ("open/read-only-descriptor-writes", || {
        file("f")?;
        let opened = open("f", OFlags::RDONLY)?;
        words([see(opened.write_at(b"y", 0)), see(opened.set_len(0)), read("f")])
    }),
    ("open/write-only-descriptor-reads", || {
        file("f")?;
        Ok(see(open("f", OFlags::WRONLY)?.read_at(&mut [0], 0)))
    }),
    ("open/sync-flags", || {
        let mut file = open("f", OFlags::RDWR | OFlags::CREATE | OFlags::SYNC)?;
        file.write_all(b"synced")?;
        open("f", OFlags::RDWR | OFlags::DSYNC)?.write_all(b"S")?;
        Ok(read("f"))
    }),
    ("open/too-many", || {
        Ok(elsewhere(|| {
            let limit = rustix::process::Rlimit { current: Some(64), maximum: Some(64) };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
            file("f")?;
            let mut kept = Vec::new();
            loop {
                match File::open("f") {
                    Ok(file) => kept.push(file),
                    Err(error) => break Ok(crate::text::name(&error)),
                }
            }
        }))
    }),
    ("open/hundreds-at-once", || {
        let mut files = (0..500).map(|n| update(&format!("f{n}"))).collect::<std::io::Result<Vec<_>>>()?;
        for (n, file) in files.iter_mut().enumerate() {
            write!(file, "{n}")?;
        }
        let mut right = 0;
        for (n, file) in files.iter_mut().enumerate() {
            file.rewind()?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            right += usize::from(text == n.to_string());
        }
        Ok(right.to_string())
    }),
    ("nameless/is-a-file", || {
        let mut file = nameless(OFlags::RDWR)?;
        file.write_all(b"x")?;
        let count = fs::read_dir(".")?.count();
        words([file.metadata()?.nlink().to_string(), file.metadata()?.len().to_string(), count.to_string()])
    }),
    ("nameless/gets-a-name", || {
        let mut file = nameless(OFlags::RDWR)?;
        file.write_all(b"born late")?;
        words([give_name(&file, "f"), read("f"), show(links("f")), mode("f")?])
    }),
    ("nameless/gets-two-names", || {
        let file = nameless(OFlags::RDWR)?;
        words([give_name(&file, "f"), give_name(&file, "g"), show(links("f")), give_name(&file, "f")])
    }),
    ("nameless/never-gets-a-name", || {
        let file = nameless(OFlags::RDWR | OFlags::EXCL)?;
        Ok(give_name(&file, "f"))
    }),
    ("nameless/must-be-writable", || Ok(see(nameless(OFlags::RDONLY)))),
    ("nameless/of-a-user", || {
        crate::kit::directory_of("d", 0o777, 0, 0)?;
        Ok(crate::kit::as_other(|| {
            let file = open("d", OFlags::TMPFILE | OFlags::RDWR)?;
            let found = file.metadata()?;
            words([format!("{}:{}", found.uid(), found.gid()), give_name(&file, "d/f"), crate::kit::owner("d/f")?])
        }))
    }),
    ("nameless/in-a-closed-directory", || {
        crate::kit::directory_of("d", 0o755, 0, 0)?;
        Ok(crate::kit::as_other(|| Ok(see(open("d", OFlags::TMPFILE | OFlags::RDWR)))))
    }),
    ("directory/there-already", || {
        fs::create_dir("d")?;
        file("f")?;
        symlink("none", "l")?;
        words([directory("d"), directory("f"), directory("l"), directory("."), directory(".."), directory("d/.")])
    }),
    ("directory/slash-at-the-end", || words([directory("d/"), there("d").to_owned(), directory("none/d")])),
    ("directory/below-a-file", || {
        file("f")?;
        Ok(directory("f/d"))
    }),
    ("directory/counts-its-children", || {
        fs::create_dir("d")?;
        let empty = links("d")?;
        fs::create_dir("d/a")?;
        fs::create_dir("d/b")?;
        file("d/f")?;
        let full = links("d")?;
        fs::remove_dir("d/a")?;
        words([empty.to_string(), full.to_string(), links("d")?.to_string()])
    }),
    ("directory/parent-is-right", || {
        fs::create_dir_all("a/b")?;
        let same = crate::kit::inode("a/b/..")? == crate::kit::inode("a")?;
        Ok(same.to_string())
    }),
];
