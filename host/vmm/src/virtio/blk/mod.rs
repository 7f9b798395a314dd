//! virtio-blk over a raw image (section 5.2).
//!
//! `request` understands what the driver asks, `disk` does it on the image, `device` is the loop between queue and
//! disk. The image's format is never probed: it is raw, whatever its first sector says. A read-only disk is enforced
//! here, not by the guest's mount flag.

mod device;
mod disk;
mod extents;
mod request;

use crate::memory::GuestRam;

pub use device::Blk;
pub use disk::{Disk, DiskError};

/// Virtio device id.
pub const DEVICE_TYPE: u32 = 2;
pub const NAME: &str = "blk";
/// One request queue.
pub const QUEUES: &[u16] = &[256];
/// Data descriptors per request: a queue's worth without header and status.
const SEGMENTS_MAX: u32 = 254;

/// Unit of `sector` and of the capacity, whatever the block size (section 5.2.4).
pub const SECTOR: u64 = 512;
/// Length of the serial number that GET_ID returns.
pub const SERIAL_LEN: usize = 20;

const FEATURE_SEG_MAX: u64 = 1 << 2;
const FEATURE_RO: u64 = 1 << 5;
const FEATURE_BLK_SIZE: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;

/// Longest range of one discard or write-zeroes request, in sectors: 1 GiB.
const RANGE_SECTORS_MAX: u32 = 1 << 21;
/// Ranges in one such request.
const RANGES_MAX: u32 = 16;

/// Status byte of a request.
const STATUS_OK: u8 = 0;
const STATUS_IOERR: u8 = 1;
const STATUS_UNSUPP: u8 = 2;

type Ram = GuestRam;
