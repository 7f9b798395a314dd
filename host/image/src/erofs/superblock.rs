//! `struct erofs_super_block`, 128 bytes at offset 1024.

use super::{BLOCK_LEN, Options, devices};
use crate::erofs::plan::Plan;

/// Where the superblock stands.
pub(super) const OFFSET: usize = 1024;
/// How long it is without extension slots.
pub(super) const LEN: usize = 128;

pub(super) const MAGIC: u32 = 0xe0f5_e1e2;
const COMPAT_SB_CHKSUM: u32 = 0x1;
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
const INCOMPAT_DEVICE_TABLE: u32 = 0x8;
const BLOCK_BITS: u8 = 12;
const VOLUME_NAME: &[u8; 16] = b"husk\0\0\0\0\0\0\0\0\0\0\0\0";

/// The superblock with its checksum still 0.
pub(super) fn encode(plan: &Plan, options: &Options) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEN);
    out.extend(MAGIC.to_le_bytes());
    out.extend([0; 4]); // checksum
    out.extend((COMPAT_SB_CHKSUM | COMPAT_MTIME).to_le_bytes());
    out.push(BLOCK_BITS);
    out.push(0); // sb_extslots
    out.extend(plan.root_nid().to_le_bytes());
    out.extend((plan.placed().len() as u64).to_le_bytes());
    let (seconds, nanos) = plan.build_time();
    out.extend(seconds.to_le_bytes());
    out.extend(nanos.to_le_bytes());
    out.extend(plan.blocks().to_le_bytes());
    out.extend([0; 4]); // meta_blkaddr: node ids count from the start of the image
    out.extend([0; 4]); // xattr_blkaddr: no shared attributes
    out.extend(options.uuid);
    out.extend(VOLUME_NAME);
    let devices = plan.devices();
    let chunked = if plan.has_chunks() { INCOMPAT_CHUNKED_FILE } else { 0 };
    let tabled = if devices.is_empty() { 0 } else { INCOMPAT_DEVICE_TABLE };
    out.extend((chunked | tabled).to_le_bytes());
    out.extend([0; 2]); // no compression
    if !devices.is_empty() {
        // Plan::new() saw that they can be counted.
        out.extend(u16::try_from(devices.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(devices::TABLE_SLOT.to_le_bytes());
    }
    out.resize(LEN, 0);
    out
}

/// The checksum of the first block (whose own field is 0): CRC-32C seeded with ones and not
/// inverted at the end, from the superblock to the end of its block
/// (`erofs_superblock_csum_verify` of `fs/erofs/super.c`).
pub(super) fn checksum(first_block: &[u8; BLOCK_LEN]) -> u32 {
    let (_, covered) = first_block.split_at(OFFSET);
    !crc32c::crc32c(covered)
}

/// Offset of the checksum field in the image.
pub(super) const CHECKSUM_OFFSET: u64 = OFFSET as u64 + 4;
