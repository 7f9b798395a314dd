//! Reading directories, also while they change.

use std::collections::BTreeSet;
use std::fs;

use rustix::fs::{Dir, FileType, OFlags};

use crate::kit::{Check, file, open};
use crate::text::{see, words};

fn fill(directory: &str, count: usize) -> std::io::Result<()> {
    fs::create_dir(directory)?;
    (0..count).try_for_each(|n| file(&format!("{directory}/file-{n:05}")))
}

fn entries(directory: &str) -> std::io::Result<Dir> {
    Ok(Dir::read_from(open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?)?)
}

/// Reads to the end; counts names and those seen more than once.
fn count(directory: &mut Dir) -> std::io::Result<(usize, usize)> {
    let (mut seen, mut twice) = (BTreeSet::new(), 0);
    while let Some(entry) = directory.read() {
        twice += usize::from(!seen.insert(entry?.file_name().to_owned()));
    }
    Ok((seen.len(), twice))
}

pub(crate) const CHECKS: &[Check] = &[
    ("list/empty", || {
        fs::create_dir("d")?;
        let mut names = Vec::new();
        let mut directory = entries("d")?;
        while let Some(entry) = directory.read() {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names.join(" "))
    }),
    ("list/kinds", || {
        fs::create_dir_all("d/dir")?;
        file("d/file")?;
        std::os::unix::fs::symlink("x", "d/link")?;
        crate::kit::fifo("d/pipe")?;
        let mut kinds = Vec::new();
        let mut directory = entries("d")?;
        while let Some(entry) = directory.read() {
            let entry = entry?;
            kinds.push(format!("{}:{:?}", entry.file_name().to_string_lossy(), entry.file_type()));
        }
        kinds.sort();
        Ok(kinds.join(" "))
    }),
    ("list/inode-numbers-agree", || {
        fill("d", 50)?;
        let mut directory = entries("d")?;
        let mut right = 0;
        while let Some(entry) = directory.read() {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            right += usize::from(name != ".." && crate::kit::inode(&format!("d/{name}"))? == entry.ino());
        }
        Ok(right.to_string())
    }),
    ("list/three-thousand", || {
        fill("d", 3000)?;
        let (names, twice) = count(&mut entries("d")?)?;
        words([names.to_string(), twice.to_string()])
    }),
    ("list/twice-with-one-descriptor", || {
        fill("d", 100)?;
        let mut directory = entries("d")?;
        let first = count(&mut directory)?.0;
        file("d/more")?;
        directory.rewind();
        words([first.to_string(), count(&mut directory)?.0.to_string()])
    }),
    ("list/made-before-reading", || {
        fs::create_dir("d")?;
        let mut directory = entries("d")?;
        file("d/late")?;
        Ok(count(&mut directory)?.0.to_string())
    }),
    ("list/removing-what-is-read", || {
        fill("d", 1000)?;
        let mut directory = entries("d")?;
        let mut removed = 0;
        while let Some(entry) = directory.read() {
            let entry = entry?;
            if entry.file_type() != FileType::Directory {
                fs::remove_file(format!("d/{}", entry.file_name().to_string_lossy()))?;
                removed += 1;
            }
        }
        words([removed.to_string(), fs::read_dir("d")?.count().to_string()])
    }),
    ("list/the-untouched-while-others-come-and-go", || {
        fill("d", 1000)?;
        let mut directory = entries("d")?;
        let mut kept = BTreeSet::new();
        let mut step = 0;
        while let Some(entry) = directory.read() {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("file-") {
                kept.insert(name);
            }
            if step < 500 {
                file(&format!("d/new-{step}"))?;
                if step % 2 == 1 {
                    fs::remove_file(format!("d/new-{}", step - 1))?;
                }
            }
            step += 1;
        }
        Ok(kept.len().to_string())
    }),
    ("list/renaming-while-reading", || {
        fill("d", 200)?;
        let mut directory = entries("d")?;
        let mut seen = 0;
        while let Some(entry) = directory.read() {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if seen < 50 && name.starts_with("file-") {
                fs::rename(format!("d/{name}"), format!("d/moved-{seen}"))?;
            }
            seen += 1;
        }
        Ok(fs::read_dir("d")?.count().to_string())
    }),
    ("list/positions", || {
        fill("d", 300)?;
        let mut directory = entries("d")?;
        let mut names = Vec::new();
        while let Some(entry) = directory.read() {
            let entry = entry?;
            names.push((entry.file_name().to_owned(), entry.offset()));
        }
        // Back to behind the hundredth: the rest follows in the same order.
        directory.seek(names[100].1)?;
        let mut right = 0;
        for (expected, _) in &names[101..] {
            right += usize::from(
                directory.read().is_some_and(|entry| entry.is_ok_and(|entry| entry.file_name() == expected.as_c_str())),
            );
        }
        words([right.to_string(), directory.read().is_none().to_string()])
    }),
    ("list/positions-of-another-descriptor", || {
        fill("d", 300)?;
        let (mut a, mut b) = (entries("d")?, entries("d")?);
        let mut position = 0;
        for _ in 0..150 {
            position = a.read().unwrap()?.offset();
        }
        b.seek(position)?;
        let same = a.read().unwrap()?.file_name() == b.read().unwrap()?.file_name();
        Ok(same.to_string())
    }),
    ("list/two-readers", || {
        fill("d", 500)?;
        let (mut a, mut b) = (entries("d")?, entries("d")?);
        for _ in 0..100 {
            drop(a.read());
        }
        let b = count(&mut b)?.0;
        words([b.to_string(), count(&mut a)?.0.to_string()])
    }),
    ("list/long-names", || {
        fs::create_dir("d")?;
        (0..300).try_for_each(|n| file(&format!("d/{n:0255}")))?;
        let (names, twice) = count(&mut entries("d")?)?;
        words([names.to_string(), twice.to_string()])
    }),
    ("list/a-file", || {
        file("f")?;
        words([see(fs::read_dir("f")), see(fs::read_dir("none"))])
    }),
    ("list/into-little-room", || {
        fs::create_dir("d")?;
        file(&format!("d/{}", "n".repeat(200)))?;
        Ok(crate::sys::list_into(&open("d", OFlags::RDONLY)?, 20))
    }),
];
