//! virtio devices: what they share, and one folder per device.
//!
//! - [`state`]: the state machine of a device, independent of its transport;
//! - [`mmio`]: the virtio-mmio registers in front of it; [`slots`]: the row of places for such devices;
//! - [`config`], [`queue`], [`buffer`], [`interrupt`]: what a running device works with;
//! - [`worker`]: the thread that a device runs on;
//! - [`balloon`], [`blk`], [`fs`], [`mem`], [`net`], [`vsock`]: the devices, each with `mod.rs` (constants, errors) and `device.rs` (the work).
//!
//! Section numbers are those of the virtio specification, version 1.2.

pub mod balloon;
pub mod blk;
pub mod buffer;
pub mod config;
pub mod fs;
pub mod interrupt;
pub mod io;
pub mod mem;
pub mod mmio;
pub mod net;
pub mod queue;
pub mod slots;
pub mod state;
pub mod vsock;
pub mod worker;

#[cfg(test)]
pub(crate) mod testing;

/// Feature bits that concern every device (section 6).
pub mod feature {
    pub const RING_EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
}
