//! Workloads on a file system. The guest's cache is emptied before everything that reads; the host's keeps what it has,
//! so that the path between the two is measured and not a disk.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{Advice, fadvise, sync};

use crate::phase::{self, Amount};

/// The large file. The driver makes one of this size in the EROFS image, too.
const SIZE: usize = 32 << 20;
const CHUNK: usize = 1 << 20;
const PAGE: usize = 4096;
const RANDOM_READS: usize = 500;
const SYNCED_WRITES: usize = 100;
const FILES: usize = 300;

/// All of them, in an empty directory.
pub(crate) fn write_and_read(name: &str, dir: &Path) -> Result<()> {
    let data = dir.join("data");
    phase::run(&format!("{name} write, fsync"), Amount::Bytes(SIZE), || {
        let mut file = File::create(&data)?;
        let chunk = vec![b'x'; CHUNK];
        for _ in 0..SIZE / CHUNK {
            file.write_all(&chunk)?;
        }
        Ok(file.sync_all()?)
    })?;
    fs::create_dir(dir.join("small"))?;
    phase::run(&format!("{name} create file"), Amount::Operations(FILES), || {
        for index in 0..FILES {
            fs::write(small(dir, index), b"a small file")?;
        }
        Ok(())
    })?;
    read(name, dir)?;
    phase::run(&format!("{name} unlink"), Amount::Operations(FILES), || {
        for index in 0..FILES {
            fs::remove_file(small(dir, index))?;
        }
        Ok(())
    })?;
    phase::run(&format!("{name} 4 KiB write, fsync"), Amount::Operations(SYNCED_WRITES), || {
        let file = File::options().write(true).open(&data)?;
        for offset in scattered().take(SYNCED_WRITES) {
            file.write_all_at(&[b'y'; PAGE], offset)?;
            file.sync_all()?;
        }
        Ok(())
    })
}

/// Those that read, where `data` and the files of `small` are already.
pub(crate) fn read(name: &str, dir: &Path) -> Result<()> {
    let data = dir.join("data");
    empty_cache()?;
    phase::run(&format!("{name} read"), Amount::Bytes(SIZE), || {
        let mut file = File::open(&data)?;
        let mut chunk = vec![0; CHUNK];
        for _ in 0..SIZE / CHUNK {
            file.read_exact(&mut chunk)?;
        }
        ensure!(file.read(&mut chunk)? == 0, "the file is longer than {SIZE} bytes");
        Ok(())
    })?;
    empty_cache()?;
    phase::run(&format!("{name} 4 KiB read"), Amount::Operations(RANDOM_READS), || {
        let file = File::open(&data)?;
        // No more than what is asked for.
        fadvise(&file, 0, None, Advice::Random)?;
        let mut page = [0; PAGE];
        for offset in scattered().take(RANDOM_READS) {
            file.read_exact_at(&mut page, offset)?;
        }
        Ok(())
    })?;
    empty_cache()?;
    phase::run(&format!("{name} stat"), Amount::Operations(FILES), || {
        for index in 0..FILES {
            fs::metadata(small(dir, index))?;
        }
        Ok(())
    })
}

fn small(dir: &Path, index: usize) -> std::path::PathBuf {
    dir.join("small").join(format!("file-{index}"))
}

/// Page offsets in the large file, the same ones every time and none twice within a run: a full-period congruential
/// generator (modulus a power of two, odd increment, multiplier 1 modulo 4).
fn scattered() -> impl Iterator<Item = u64> {
    let pages = SIZE / PAGE;
    let next = move |page: &usize| Some((page * 1_237 + 2_741) % pages);
    std::iter::successors(Some(17), next).filter_map(|page| u64::try_from(page * PAGE).ok())
}

fn empty_cache() -> Result<()> {
    sync();
    Ok(fs::write("/proc/sys/vm/drop_caches", "3")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_read_twice() {
        let offsets: std::collections::BTreeSet<u64> = scattered().take(RANDOM_READS).collect();
        assert_eq!(offsets.len(), RANDOM_READS);
        assert!(offsets.iter().all(|offset| *offset < SIZE as u64));
    }
}
