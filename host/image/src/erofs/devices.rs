//! The device table: `struct erofs_deviceslot`, 128 bytes for each device, right behind the superblock.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;

use super::superblock;
use crate::digest::Digest;

const SLOT_LEN: usize = 128;
/// The table's offset, counted in slots.
pub(super) const TABLE_SLOT: u16 = 9;
const _: () = assert!(TABLE_SLOT as usize * SLOT_LEN == superblock::OFFSET + superblock::LEN);

/// Devices of an image: well above what manifests may have layers, and so few that the root's inode, which stands behind
/// the table, can be named (16 bits).
const DEVICES_MAX: usize = 1024;

/// A file of blocks that an image continues in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// What is in it. In the table it stands as 64 hexadecimal digits.
    pub tag: Digest,
    /// Its length in blocks, never 0.
    pub blocks: u32,
}

/// An image whose table cannot be read.
#[derive(Debug, Error)]
pub enum DeviceTableError {
    /// The file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something else than what was written.
    #[error("it is not an image as husk writes them")]
    Foreign,
}

/// Where inodes begin, behind a table of `count` devices.
pub(super) fn table_end(count: usize) -> Option<u64> {
    let end = superblock::OFFSET + superblock::LEN + count * SLOT_LEN;
    (count <= DEVICES_MAX).then_some(end as u64)
}

/// The first block of each device, when the image itself has `own` blocks.
pub(super) fn starts(own: u32, devices: &[Device]) -> Option<Vec<u32>> {
    let mut next = own;
    let mut starts = Vec::with_capacity(devices.len());
    for device in devices {
        starts.push(next);
        // The last number means "hole" in a chunk map.
        next = next.checked_add(device.blocks).filter(|end| *end < u32::MAX)?;
    }
    Some(starts)
}

pub(super) fn encode(devices: &[Device], own: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(devices.len() * SLOT_LEN);
    // Plan::new() saw that there is room for all.
    for (device, start) in devices.iter().zip(starts(own, devices).unwrap_or_default()) {
        let end = out.len() + SLOT_LEN;
        out.extend(device.tag.hex().as_bytes());
        out.extend(device.blocks.to_le_bytes());
        out.extend(start.to_le_bytes());
        out.resize(end, 0);
    }
    out
}

/// The devices that follow the image in `file` on its disk, in their order.
///
/// # Errors
/// [`DeviceTableError`].
pub fn read_devices(file: &File) -> Result<Vec<Device>, DeviceTableError> {
    let mut superblock = [0; superblock::LEN];
    file.read_exact_at(&mut superblock, superblock::OFFSET as u64)?;
    if superblock.first_chunk() != Some(&superblock::MAGIC.to_le_bytes()) {
        return Err(DeviceTableError::Foreign);
    }
    let count = field(&superblock, 86).map_or(0, u16::from_le_bytes);
    if count == 0 {
        return Ok(Vec::new());
    }
    if field(&superblock, 88).map(u16::from_le_bytes) != Some(TABLE_SLOT) || usize::from(count) > DEVICES_MAX {
        return Err(DeviceTableError::Foreign);
    }
    let mut table = vec![0; usize::from(count) * SLOT_LEN];
    file.read_exact_at(&mut table, (superblock::OFFSET + superblock::LEN) as u64)?;
    table.chunks_exact(SLOT_LEN).map(|slot| device(slot).ok_or(DeviceTableError::Foreign)).collect()
}

fn device(slot: &[u8]) -> Option<Device> {
    let tag = std::str::from_utf8(slot.get(..64)?).ok().and_then(Digest::from_hex)?;
    let blocks = u32::from_le_bytes(field(slot, 64)?);
    (blocks > 0).then_some(Device { tag, blocks })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
