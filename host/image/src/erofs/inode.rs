//! On-disk inodes: `struct erofs_inode_compact` (32 bytes) and `struct erofs_inode_extended`
//! (64 bytes).

use crate::tree::{Kind, Metadata, Node};

/// Inodes stand at multiples of this; an inode's id is its offset divided by it.
pub(super) const SLOT: u64 = 32;

/// How an inode's data is found (`EROFS_INODE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Consecutive blocks.
    Plain,
    /// Consecutive blocks, and the bytes of the last one right after the inode.
    Inline,
    /// Chunks of `4096 << bits` bytes, their addresses right after the inode.
    Chunked {
        /// The shift.
        bits: u8,
    },
}

/// The two shapes of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Compact,
    Extended,
}

impl Shape {
    /// The smaller one that can hold the node. A compact inode has no time of its own: it shows
    /// the superblock's build time.
    pub(super) fn of(metadata: &Metadata, size: u64, nlink: u32, build_time: (i64, u32)) -> Self {
        let compact = metadata.uid <= u32::from(u16::MAX)
            && metadata.gid <= u32::from(u16::MAX)
            && size <= u64::from(u32::MAX)
            && nlink <= u32::from(u16::MAX)
            && (metadata.mtime, metadata.mtime_nsec) == build_time;
        if compact { Self::Compact } else { Self::Extended }
    }

    pub(super) fn len(self) -> u64 {
        match self {
            Self::Compact => 32,
            Self::Extended => 64,
        }
    }
}

/// Everything an inode says beside its node's metadata.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub(super) shape: Shape,
    pub(super) layout: Layout,
    pub(super) xattr_count: u16,
    pub(super) size: u64,
    pub(super) nlink: u32,
    /// First data block, for the layouts that have one.
    pub(super) block: u32,
    /// Number shown where an inode number must fit 32 bits.
    pub(super) ino: u32,
}

/// Appends the inode.
pub(super) fn encode(node: &Node, fields: &Fields, out: &mut Vec<u8>) {
    let (layout, mut union) = match fields.layout {
        Layout::Plain => (0_u16, fields.block),
        Layout::Inline => (2, fields.block),
        Layout::Chunked { bits } => (4, u32::from(bits)),
    };
    if let Kind::CharDevice(device) | Kind::BlockDevice(device) = node.kind {
        union = device.encode();
    }
    let version = u16::from(fields.shape == Shape::Extended);
    out.extend((version | layout << 1).to_le_bytes());
    out.extend(fields.xattr_count.to_le_bytes());
    out.extend((file_format(&node.kind) | node.metadata.mode & 0o7777).to_le_bytes());
    let Metadata { uid, gid, mtime, mtime_nsec, .. } = node.metadata;
    match fields.shape {
        Shape::Compact => {
            // Shape::of() saw that these fit.
            out.extend(u16::try_from(fields.nlink).unwrap_or(u16::MAX).to_le_bytes());
            out.extend(u32::try_from(fields.size).unwrap_or(u32::MAX).to_le_bytes());
            out.extend([0; 4]);
            out.extend(union.to_le_bytes());
            out.extend(fields.ino.to_le_bytes());
            out.extend(u16::try_from(uid).unwrap_or(u16::MAX).to_le_bytes());
            out.extend(u16::try_from(gid).unwrap_or(u16::MAX).to_le_bytes());
            out.extend([0; 4]);
        }
        Shape::Extended => {
            out.extend([0; 2]);
            out.extend(fields.size.to_le_bytes());
            out.extend(union.to_le_bytes());
            out.extend(fields.ino.to_le_bytes());
            out.extend(uid.to_le_bytes());
            out.extend(gid.to_le_bytes());
            out.extend(mtime.to_le_bytes());
            out.extend(mtime_nsec.to_le_bytes());
            out.extend(fields.nlink.to_le_bytes());
            out.extend([0; 16]);
        }
    }
}

/// `S_IF*` of `include/uapi/linux/stat.h`.
fn file_format(kind: &Kind) -> u16 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharDevice(_) => 0o020_000,
        Kind::Directory(_) => 0o040_000,
        Kind::BlockDevice(_) => 0o060_000,
        Kind::File { .. } => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Socket => 0o140_000,
    }
}
