//! The formatted but empty file system that scratch disks are cloned from.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use super::scratch::ScratchError;
use crate::text;

/// Changes with [`OPTIONS`], so that an old template is not taken for a new one.
const VERSION: u32 = 2;

/// - no journal: the file system dies with its pod, and a journal would double every write of metadata;
/// - no reserved blocks: containers may be root, and the limit is the disk's size;
/// - inode tables count as zeroed: the image is a fresh sparse file, so they are, and the guest's kernel need not fill
///   them in the background, block by block of the host's disk;
/// - project quotas: the limits of single volumes;
/// - no discard: there is nothing to discard in a new file.
const OPTIONS: [&str; 12] = [
    "-q",
    "-F",
    "-b",
    "4096",
    "-m",
    "0",
    "-O",
    "^has_journal,quota,project",
    "-E",
    "quotatype=prjquota,lazy_itable_init=1,assume_storage_prezeroed=1,nodiscard,root_owner=0:0",
    "-L",
    "husk-scratch",
];

/// The template's path; formats it when this is the first pod with this size. Blocks meanwhile; several callers, also
/// in several processes, wait for the first.
pub(super) fn get(dir: &Path, bytes: u64) -> Result<PathBuf, ScratchError> {
    let path = dir.join(format!("ext4-v{VERSION}-{bytes}.img"));
    if path.exists() {
        return Ok(path);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(ScratchError::io("make the template directory", dir))?;
    let lock_path = dir.join("lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(ScratchError::io("open the lock", &lock_path))?;
    rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
        .map_err(|error| ScratchError::io("lock", &lock_path)(error.into()))?;
    if path.exists() {
        return Ok(path);
    }
    // Under the lock, so a leftover of a process that was killed here is nobody's.
    let unfinished = dir.join(format!("ext4-v{VERSION}-{bytes}.new"));
    let result = format(&unfinished, bytes)
        .and_then(|()| std::fs::rename(&unfinished, &path).map_err(ScratchError::io("put into place", &path)));
    if result.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    result.map(|()| path)
}

fn format(path: &Path, bytes: u64) -> Result<(), ScratchError> {
    let _ = std::fs::remove_file(path);
    let file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(ScratchError::io("make", path))?;
    file.set_len(bytes).map_err(ScratchError::io("size", path))?;
    let output = run_mkfs(path)?;
    if !output.status.success() {
        let text = text::message(&String::from_utf8_lossy(&output.stderr));
        return Err(ScratchError::Mkfs { path: path.to_owned(), status: output.status.to_string(), output: text });
    }
    file.sync_all().map_err(ScratchError::io("write", path))
}

fn run_mkfs(path: &Path) -> Result<std::process::Output, ScratchError> {
    // A shim's PATH may lack the system directories.
    for program in ["mkfs.ext4", "/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"] {
        let result = Command::new(program)
            .args(OPTIONS)
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output();
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => return result.map_err(ScratchError::io("run mkfs.ext4 on", path)),
        }
    }
    Err(ScratchError::NoMkfs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pods_at_once_format_one_template() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| get(dir.path(), 32 << 20).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(paths.windows(2).all(|pair| pair[0] == pair[1]));
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["ext4-v2-33554432.img", "lock"]);
    }

    #[test]
    fn a_failed_format_leaves_no_template() {
        let dir = tempfile::tempdir().unwrap();
        // Too small for a file system.
        assert!(matches!(get(dir.path(), 4096), Err(ScratchError::Mkfs { .. })));
        assert!(!dir.path().join("ext4-v2-4096.img").exists());
        assert!(!dir.path().join("ext4-v2-4096.new").exists());
    }
}
