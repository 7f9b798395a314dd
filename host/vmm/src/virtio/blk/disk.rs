//! The image behind a device.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_getfl, fdatasync};
use vm_memory::VolatileSlice;

use super::extents::Extents;
use super::request::Range;
use super::{
    FEATURE_BLK_SIZE, FEATURE_DISCARD, FEATURE_FLUSH, FEATURE_RO, FEATURE_SEG_MAX, FEATURE_WRITE_ZEROES, NAME, QUEUES,
    RANGE_SECTORS_MAX, RANGES_MAX, SECTOR, SEGMENTS_MAX, SERIAL_LEN,
};
use crate::virtio::buffer::Buffer;
use crate::virtio::io as guest_io;
use crate::virtio::state::DeviceSpec;

/// Why a file cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("cannot find the size of the disk image: {0}")]
    Size(io::Error),
    #[error("the disk image has {0} bytes, no multiple of {SECTOR}: pad it to whole sectors")]
    Ragged(u64),
    #[error("the disk image is empty")]
    Empty,
    #[error("the disk image is neither a regular file nor a block device")]
    Kind,
    #[error("a writable disk is one file, not {0}")]
    Several(usize),
    #[error("the disk is to be {wanted}, but its descriptor was opened {opened}")]
    Access { wanted: &'static str, opened: &'static str },
    #[error("the serial number {0:?} is not up to {SERIAL_LEN} bytes of printable ASCII")]
    Serial(String),
}

/// A raw image.
#[derive(Debug)]
pub struct Disk {
    extents: Extents,
    read_only: bool,
    /// Holes can be punched: a regular file.
    sparse: bool,
    serial: [u8; SERIAL_LEN],
}

impl Disk {
    /// Takes the open files of an image, in their order; nothing is read from them.
    pub fn new(files: Vec<File>, read_only: bool, serial: &str) -> Result<Self, DiskError> {
        if !read_only && files.len() > 1 {
            return Err(DiskError::Several(files.len()));
        }
        let mut sparse = true;
        for file in &files {
            sparse &= check(file, read_only)?;
        }
        let extents = Extents::new(files)?;
        let mut padded = [0; SERIAL_LEN];
        let printable = serial.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        match padded.get_mut(..serial.len()).filter(|_| printable) {
            Some(front) => front.copy_from_slice(serial.as_bytes()),
            None => return Err(DiskError::Serial(serial.to_owned())),
        }
        Ok(Self { extents, read_only, sparse, serial: padded })
    }

    pub(super) fn capacity(&self) -> u64 {
        self.extents.len()
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn serial(&self) -> &[u8; SERIAL_LEN] {
        &self.serial
    }

    /// What the driver is told.
    #[must_use]
    pub fn spec(&self) -> DeviceSpec {
        let mut features = FEATURE_SEG_MAX | FEATURE_BLK_SIZE | FEATURE_FLUSH;
        if self.read_only {
            features |= FEATURE_RO;
        } else if self.sparse {
            features |= FEATURE_DISCARD | FEATURE_WRITE_ZEROES;
        }
        DeviceSpec {
            name: NAME,
            device_type: super::DEVICE_TYPE,
            features,
            queues: QUEUES,
            config: self.config().into(),
        }
    }

    /// `struct virtio_blk_config` (section 5.2.4).
    fn config(&self) -> Vec<u8> {
        let mut config = Vec::with_capacity(60);
        config.extend_from_slice(&(self.capacity() / SECTOR).to_le_bytes());
        config.extend_from_slice(&[0; 4]); // size_max, not offered
        config.extend_from_slice(&SEGMENTS_MAX.to_le_bytes());
        config.extend_from_slice(&[0; 4]); // geometry, not offered
        config.extend_from_slice(&u32::try_from(SECTOR).unwrap_or(0).to_le_bytes()); // blk_size
        config.extend_from_slice(&[0; 8]); // topology, not offered
        config.extend_from_slice(&[0, 0]); // writeback, not offered
        config.extend_from_slice(&[0; 2]); // num_queues, not offered
        config.extend_from_slice(&RANGE_SECTORS_MAX.to_le_bytes()); // max_discard_sectors
        config.extend_from_slice(&RANGES_MAX.to_le_bytes()); // max_discard_seg
        config.extend_from_slice(&8_u32.to_le_bytes()); // discard_sector_alignment: 4 KiB
        config.extend_from_slice(&RANGE_SECTORS_MAX.to_le_bytes()); // max_write_zeroes_sectors
        config.extend_from_slice(&RANGES_MAX.to_le_bytes()); // max_write_zeroes_seg
        config.extend_from_slice(&[1, 0, 0, 0]); // write_zeroes_may_unmap
        config
    }

    /// Fills all of `into` from the image.
    pub(super) fn read(&self, offset: u64, into: Buffer<'_>) -> io::Result<()> {
        transfer(offset, into, |slices, offset| self.extents.read_at(slices, offset))
    }

    /// Writes all of `from` to the image.
    pub(super) fn write(&self, offset: u64, from: Buffer<'_>) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let file = self.extents.only()?;
        transfer(offset, from, |slices, offset| match guest_io::write_at(file, slices, offset) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            other => other,
        })
    }

    /// Makes everything written before durable.
    pub(super) fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        Ok(fdatasync(self.extents.only()?)?)
    }

    /// Gives the range's space back; it reads as zeroes afterwards.
    pub(super) fn discard(&self, range: Range) -> io::Result<()> {
        self.allocate(range, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE)
    }

    /// Makes the range read as zeroes.
    pub(super) fn write_zeroes(&self, range: Range) -> io::Result<()> {
        if range.unmap {
            return self.discard(range);
        }
        self.allocate(range, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE)
    }

    fn allocate(&self, range: Range, how: FallocateFlags) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if range.length == 0 {
            return Ok(());
        }
        Ok(fallocate(self.extents.only()?, how, range.offset, range.length)?)
    }
}

/// Whether the descriptor may do what the disk may, and no more; tells whether it is a regular file.
fn check(file: &File, read_only: bool) -> Result<bool, DiskError> {
    let mode = fcntl_getfl(file).map_err(|errno| DiskError::Size(errno.into()))? & OFlags::RWMODE;
    // The descriptor itself must not be able to do more than the device may: a second wall behind our checks.
    match (read_only, mode) {
        (true, OFlags::RDONLY) | (false, OFlags::RDWR) => {}
        (true, _) => return Err(DiskError::Access { wanted: "read-only", opened: "for writing" }),
        (false, OFlags::RDONLY) => return Err(DiskError::Access { wanted: "writable", opened: "read-only" }),
        (false, _) => return Err(DiskError::Access { wanted: "writable", opened: "write-only" }),
    }
    let kind = file.metadata().map_err(DiskError::Size)?.file_type();
    if !kind.is_file() && !std::os::unix::fs::FileTypeExt::is_block_device(&kind) {
        return Err(DiskError::Kind);
    }
    Ok(kind.is_file())
}

/// Repeats a transfer that may stop short until all of the buffer is done.
fn transfer(
    mut offset: u64,
    mut buffer: Buffer<'_>,
    mut step: impl FnMut(&[VolatileSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !buffer.is_empty() {
        let count = step(buffer.slices(), offset)?;
        buffer.split_front(count).map_err(io::Error::other)?;
        offset = u64::try_from(count).ok().and_then(|count| offset.checked_add(count)).ok_or(io::ErrorKind::Other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    fn image(size: u64) -> (tempfile::NamedTempFile, File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let read_only = OpenOptions::new().read(true).open(file.path()).unwrap();
        (file, read_only)
    }

    #[test]
    fn a_ragged_or_empty_image_is_refused() {
        assert!(matches!(Disk::new(vec![image(1000).1], true, ""), Err(DiskError::Ragged(1000))));
        assert!(matches!(Disk::new(vec![image(0).1], true, ""), Err(DiskError::Empty)));
    }

    #[test]
    fn a_descriptor_must_be_opened_as_the_disk_is_used() {
        let (writable, read_only) = image(512);
        assert!(matches!(Disk::new(vec![read_only], false, ""), Err(DiskError::Access { .. })));
        let writable = writable.reopen().unwrap();
        assert!(matches!(Disk::new(vec![writable], true, ""), Err(DiskError::Access { .. })));
    }

    #[test]
    fn a_writable_disk_is_one_file() {
        let files = || [image(512), image(512)].map(|(file, _)| file.reopen().unwrap()).into();
        assert!(matches!(Disk::new(files(), false, ""), Err(DiskError::Several(2))));
        assert!(matches!(Disk::new(Vec::new(), true, ""), Err(DiskError::Empty)));
    }

    #[test]
    fn a_directory_or_device_file_is_no_disk() {
        assert!(matches!(Disk::new(vec![File::open("/dev/null").unwrap()], true, ""), Err(DiskError::Kind)));
        assert!(matches!(Disk::new(vec![File::open("/").unwrap()], true, ""), Err(DiskError::Kind)));
    }

    #[test]
    fn a_long_or_unprintable_serial_is_refused() {
        for serial in ["123456789012345678901", "a\nb", "\u{e9}"] {
            assert!(matches!(Disk::new(vec![image(512).1], true, serial), Err(DiskError::Serial(_))));
        }
        assert!(Disk::new(vec![image(512).1], true, "12345678901234567890").is_ok());
    }

    #[test]
    fn the_configuration_tells_capacity_and_access() {
        let spec = Disk::new(vec![image(4096).1], true, "").unwrap().spec();
        assert_eq!(spec.config.bytes().len(), 60);
        assert_eq!(spec.config.bytes()[..8], 8_u64.to_le_bytes());
        assert_eq!(spec.features & (FEATURE_RO | FEATURE_DISCARD), FEATURE_RO);
    }
}
