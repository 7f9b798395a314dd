//! Lengths and bytes of names and paths.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use crate::kit::{Check, file, read};
use crate::text::{see, words};

fn long(length: usize) -> String {
    "n".repeat(length)
}

/// A path of `length` bytes to the file `f` here.
fn roundabout(length: usize) -> String {
    let mut path = "./".repeat((length - 1) / 2);
    path.push('f');
    while path.len() < length {
        path.insert(0, '.');
        path.insert(1, '/');
        path.remove(path.len() - 2);
    }
    path
}

pub(crate) const CHECKS: &[Check] = &[
    ("name/255-bytes", || {
        let name = long(255);
        words([see(file(&name)), read(&name), see(fs::rename(&name, long(254))), see(fs::remove_file(long(254)))])
    }),
    ("name/256-bytes", || {
        let name = long(256);
        file("f")?;
        words([
            see(file(&name)),
            see(fs::metadata(&name)),
            see(fs::create_dir(&name)),
            see(fs::remove_file(&name)),
            see(fs::remove_dir(&name)),
            see(fs::rename("f", &name)),
            see(fs::rename(&name, "f")),
            see(fs::hard_link("f", &name)),
            see(symlink("f", &name)),
            see(crate::kit::fifo(&name)),
        ])
    }),
    ("name/255-bytes-of-unicode", || {
        let name = "ж".repeat(127);
        words([see(file(&name)), read(&name), see(file(&"ж".repeat(128)))])
    }),
    ("name/any-bytes", || {
        let mut right = 0;
        for byte in 1..=255_u8 {
            if byte == b'/' {
                continue;
            }
            let bytes = [b'n', byte, b'n'];
            let name = OsStr::from_bytes(&bytes);
            fs::write(name, [byte])?;
            right += usize::from(fs::read(name)? == [byte]);
        }
        words([right.to_string(), fs::read_dir(".")?.count().to_string()])
    }),
    ("name/case-and-composition", || {
        for name in ["a", "A", "\u{e9}", "e\u{301}", " ", "a ", "..a", "...", "-"] {
            fs::write(name, name)?;
        }
        Ok(fs::read_dir(".")?.count().to_string())
    }),
    ("path/4095-bytes", || {
        file("f")?;
        Ok(see(fs::metadata(roundabout(4095))))
    }),
    ("path/4096-bytes", || {
        file("f")?;
        Ok(see(fs::metadata(roundabout(4097))))
    }),
    ("path/deep", || {
        // Deeper than a path can say: step by step.
        let name = long(200);
        for _ in 0..30 {
            fs::create_dir(&name)?;
            std::env::set_current_dir(&name)?;
        }
        file("f")?;
        let here = crate::text::name(&std::env::current_dir().err().unwrap_or_else(|| std::io::Error::other("known")));
        words([read("f"), here])
    }),
    ("path/dots", || {
        fs::create_dir_all("a/b")?;
        file("a/f")?;
        words([
            read("a/b/../f"),
            read("./a/./f"),
            read("a//f"),
            see(fs::metadata("a/f/..")),
            see(fs::metadata("none/..")),
        ])
    }),
];
