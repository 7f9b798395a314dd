//! Removes a directory tree that a hostile container has filled.
//!
//! Depth is the trap: recursion, or one open descriptor a level, ends PID 1 on a tree a hundred thousand levels deep.
//! So every directory found is moved up into the tree's top under a number and emptied there: the stack and the number
//! of descriptors stay constant whatever the tree looks like.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Removes `path` and everything in it. Nothing there is success. Links are removed, not followed; nothing else may
/// be changing the tree, and no mount may lie in it.
pub fn remove_tree(path: &Path) -> Result<()> {
    let shown = path.display();
    let top = match open_directory(rustix::fs::CWD, path) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno).on("open", &shown),
    };
    let mut serial = 0_u64;
    loop {
        // One sweep over the top: files go, each directory found is emptied into the top and goes too.
        let mut removed = 0_usize;
        for (name, kind) in entries(&top).on("getdents64", &shown)? {
            removed = removed.saturating_add(1);
            if kind != FileType::Directory {
                unlink(&top, &name, AtFlags::empty()).on("unlinkat", &shown)?;
                continue;
            }
            let directory = open_directory(&top, &name).on("openat", &shown)?;
            empty_into(&directory, &top, &mut serial).on("empty", &shown)?;
            unlink(&top, &name, AtFlags::REMOVEDIR).on("rmdir", &shown)?;
        }
        if removed == 0 {
            break;
        }
    }
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).on("rmdir", &shown),
    }
}

fn unlink(parent: impl AsFd, name: &std::ffi::CStr, flags: AtFlags) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Up to a batch of a directory's entries, without `.` and `..`.
fn entries(directory: impl AsFd) -> rustix::io::Result<Vec<(std::ffi::CString, FileType)>> {
    const BATCH: usize = 256;
    let mut found = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            known => known,
        };
        found.push((name.to_owned(), kind));
        if found.len() >= BATCH {
            break;
        }
    }
    Ok(found)
}

/// Empties `directory`: files are unlinked, directories moved into `top` under a fresh number.
fn empty_into(directory: &OwnedFd, top: &OwnedFd, serial: &mut u64) -> rustix::io::Result<()> {
    loop {
        let found = entries(directory)?;
        if found.is_empty() {
            return Ok(());
        }
        for (name, kind) in found {
            if kind != FileType::Directory {
                unlink(directory, &name, AtFlags::empty())?;
                continue;
            }
            loop {
                *serial = serial.checked_add(1).ok_or(Errno::OVERFLOW)?;
                let to = format!(".husk-{serial}");
                // NOREPLACE: the tree's own names may look like ours.
                match rustix::fs::renameat_with(directory, &name, top, to, rustix::fs::RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => {}
                    other => break other?,
                }
            }
        }
    }
}

/// Removes the directory `path` itself when it is empty; nothing there is success.
pub fn remove_empty(path: &Path) -> Result<()> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err::<(), Error>(Error::System { call: "rmdir", object: path.display().to_string(), errno }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_with_every_kind_of_entry_goes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b/c")).unwrap();
        std::fs::create_dir(tree.join(".husk-1")).unwrap();
        std::fs::write(tree.join("a/b/file"), "x").unwrap();
        std::fs::write(dir.path().join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("kept"), tree.join("a/link")).unwrap();
        std::os::unix::fs::symlink("/", tree.join("root")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(dir.path().join("kept").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut at = open_directory(rustix::fs::CWD, &tree).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::from_raw_mode(0o700)).unwrap();
            at = open_directory(&at, "deeper").unwrap();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_wide_directory_goes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("wide")).unwrap();
        for n in 0..600 {
            std::fs::write(tree.join(format!("wide/{n}")), "").unwrap();
            std::fs::create_dir(tree.join(format!("d{n}"))).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn nothing_to_remove_is_success() {
        let dir = tempfile::tempdir().unwrap();
        remove_tree(&dir.path().join("nothing")).unwrap();
        remove_empty(&dir.path().join("nothing")).unwrap();
    }
}
