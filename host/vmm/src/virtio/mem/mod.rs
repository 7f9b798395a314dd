//! virtio-mem (section 5.15): memory that the guest plugs and unplugs block by block while it runs.
//!
//! The region is guest RAM from the beginning ([`crate::memory::Hotplug`]), so that queues and buffers may lie in it; which
//! of its blocks the guest has plugged is kept in [`blocks`], and [`request`] reads what its driver asks. The machine says
//! how much it shall have ([`MemHandle::request`]); the driver follows when it can. Linux: `drivers/virtio/virtio_mem.c`.
//!
//! A guest that touches what it has not plugged gets memory all the same. What bounds it is what bounds a hostile VMM:
//! `memory.max` of the cgroup that the VMM runs in. Unplugging gives the memory of the blocks back.

mod blocks;
mod device;
mod request;

use super::state::DeviceSpec;

pub use blocks::{MemoryState, RequestError};
pub use device::{Mem, MemHandle};

/// Virtio device id.
pub const DEVICE_TYPE: u32 = 24;
pub const NAME: &str = "mem";
/// Requests; Linux has one at a time.
pub const QUEUES: &[u16] = &[16];
/// Bytes that are plugged or not as a whole: a huge page, the least that Linux unplugs (its pageblocks).
pub const BLOCK: u64 = 2 << 20;

/// The driver keeps off memory that it has not plugged, even to dump it (section 5.15.3).
const FEATURE_UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

fn spec(config: super::config::ConfigSpace) -> DeviceSpec {
    DeviceSpec {
        name: NAME,
        device_type: DEVICE_TYPE,
        features: FEATURE_UNPLUGGED_INACCESSIBLE,
        queues: QUEUES,
        config,
    }
}

#[cfg(test)]
mod tests;
