//! The pod's scratch disk: one sparse ext4 image, cloned from a template that was formatted once.
//!
//! Formatting takes longer than everything else of a pod's start together, and under load it is what collapses first;
//! a clone costs one ioctl where the file system shares extents (XFS, Btrfs), and a copy of the few non-empty blocks
//! elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom as SparseSeek, ioctl_ficlone, seek};
use rustix::io::Errno;

use super::dirs::{DirError, remove_file};
use super::template;

/// Smallest scratch disk that is worth a file system.
const MIN_BYTES: u64 = 16 * 1024 * 1024;
/// Largest, ext4's with 4 KiB blocks.
const MAX_BYTES: u64 = 16 * 1024 * 1024 * 1024 * 1024;
const BLOCK: u64 = 4096;
const COPY_BUFFER: usize = 256 * 1024;

/// The scratch disk of a running pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScratchDisk {
    pub(crate) slot: u32,
    /// The block device of the host that holds the image, and the whole disk when that is a partition.
    below: Vec<(u32, u32)>,
}

impl ScratchDisk {
    /// The disk in `slot`, whose image is in `directory`.
    pub(crate) fn new(slot: u32, directory: &Path) -> Self {
        let Ok(stat) = rustix::fs::stat(directory) else { return Self { slot, below: Vec::new() } };
        let own = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        let sys = PathBuf::from(format!("/sys/dev/block/{}:{}", own.0, own.1));
        let mut below = vec![own];
        if sys.join("partition").exists() {
            let whole = std::fs::read_to_string(sys.join("../dev")).unwrap_or_default();
            let numbers = whole.trim().split_once(':');
            below.extend(numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?))));
        }
        Self { slot, below }
    }

    /// Whether that device of the host is the one below.
    pub(crate) fn is_on(&self, major: u32, minor: u32) -> bool {
        self.below.contains(&(major, minor))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    #[error("a scratch disk of {bytes} bytes is not possible; give 16 MiB to 16 TiB")]
    Size { bytes: u64 },
    #[error("mkfs.ext4 is not installed; it formats the pods' scratch disks: install the package e2fsprogs")]
    NoMkfs,
    #[error("mkfs.ext4 on {} failed ({status}): {output}", path.display())]
    Mkfs { path: PathBuf, status: String, output: String },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Dir(#[from] DirError),
}

impl ScratchError {
    pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Makes the image of a pod and opens it. Blocks; may run mkfs.
pub(crate) fn create(template_dir: &Path, image: &Path, bytes: u64) -> Result<File, ScratchError> {
    if !(MIN_BYTES..=MAX_BYTES).contains(&bytes) {
        return Err(ScratchError::Size { bytes });
    }
    let template_path = template::get(template_dir, bytes.next_multiple_of(BLOCK))?;
    let template = File::open(&template_path).map_err(ScratchError::io("open the template", &template_path))?;
    remove_file(image)?;
    let clone = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(image)
        .map_err(ScratchError::io("make", image))?;
    clone_contents(&template, &clone).map_err(ScratchError::io("clone the template to", image))?;
    Ok(clone)
}

fn clone_contents(from: &File, to: &File) -> std::io::Result<()> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(()),
        // No shared extents here, or another file system: each kernel has its own word for it.
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::ISDIR) => {
            copy_sparse(from, to)
        }
        Err(error) => Err(error.into()),
    }
}

/// Copies only what is not a hole. Where holes cannot be asked for, blocks of zeros are left out instead.
fn copy_sparse(mut from: &File, mut to: &File) -> std::io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut buffer = vec![0; COPY_BUFFER];
    let mut position = 0;
    while position < length {
        let (begin, end) = match seek(from, SparseSeek::Data(position)) {
            Ok(begin) => (begin, seek(from, SparseSeek::Hole(begin))?),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (position, length),
            Err(error) => return Err(error.into()),
        };
        from.seek(SeekFrom::Start(begin))?;
        position = begin;
        while position < end {
            let wanted = usize::try_from(end.saturating_sub(position)).unwrap_or(COPY_BUFFER).min(COPY_BUFFER);
            let read = from.read(buffer.get_mut(..wanted).unwrap_or_default())?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let data = buffer.get(..read).unwrap_or_default();
            if data.iter().any(|byte| *byte != 0) {
                to.seek(SeekFrom::Start(position))?;
                to.write_all(data)?;
            }
            position = position.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clone_is_sparse_and_equal() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("scratch.img");
        let file = create(&dir.path().join("templates"), &image, 1 << 30).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 1 << 30);
        assert!(metadata.blocks() * 512 < 8 << 20, "{} blocks", metadata.blocks());
        let mut magic = [0; 2];
        file.read_exact_at(&mut magic, 1024 + 56).unwrap();
        assert_eq!(magic, [0x53, 0xef], "ext4's magic");
        assert!(std::process::Command::new("e2fsck").arg("-fn").arg(&image).output().unwrap().status.success());
    }

    #[test]
    fn a_senseless_size_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [0, MIN_BYTES - 1, MAX_BYTES + 1, u64::MAX] {
            let result = create(dir.path(), &dir.path().join("x"), bytes);
            assert!(matches!(result, Err(ScratchError::Size { .. })), "{bytes}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_sparse_copy_equals_its_source(
            length in 1_u64..3_000_000, pieces in prop::collection::vec((0_u64..3_000_000, 1_usize..9000), 0..6),
        ) {
            let from = tempfile::tempfile().unwrap();
            let to = tempfile::tempfile().unwrap();
            from.set_len(length).unwrap();
            for (offset, size) in pieces {
                from.write_all_at(&vec![7; size], offset % length).unwrap();
            }
            copy_sparse(&from, &to).unwrap();
            let read = |file: &File| {
                let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
                file.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            };
            prop_assert!(read(&from) == read(&to));
        }
    }
}
