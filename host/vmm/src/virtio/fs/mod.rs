//! virtio-fs (section 5.11): FUSE requests over virtqueues.
//!
//! What the requests mean is known to `husk-fs`, which serves them; `device` is the loop between queues and server,
//! `chain` the memory of one request. One thread does one request after another. DAX and notifications are not offered.

mod chain;
mod device;

pub use device::{Fs, FsError, limits};

/// Virtio device id.
pub const DEVICE_TYPE: u32 = 26;
pub const NAME: &str = "fs";
/// The high-priority queue (FORGET), and one request queue: a request of 256 pages and its headers fit.
pub const QUEUES: &[u16] = &[128, 512];

/// Length of the tag in configuration space.
const TAG_LEN: usize = 36;

/// Most objects that the guest may know at a time. Each is a descriptor of this process and, on the host, an inode that
/// cannot be evicted.
const NODES_MAX: usize = 1 << 17;
/// Most files and directories that the guest may have open at a time.
const HANDLES_MAX: usize = 1 << 14;
/// Descriptors that are left to the rest of the process (vsock connections, disks, eventfds), or half of them all.
const DESCRIPTORS_KEPT: u64 = 2048;
