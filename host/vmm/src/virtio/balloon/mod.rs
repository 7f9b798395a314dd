//! virtio-balloon (section 5.5), of which only free page reporting is offered (section 5.5.6.7).
//!
//! The guest's kernel names pages that nobody uses, and their memory goes back to the host until the guest touches them
//! again. The balloon itself stays empty: nobody squeezes a guest, whose memory is bounded by its size and its cgroup.

mod device;

use super::state::DeviceSpec;

pub use device::Balloon;

/// Virtio device id.
pub const DEVICE_TYPE: u32 = 5;
pub const NAME: &str = "balloon";
/// Inflate, deflate and reporting. The specification numbers reporting after two more queues; Linux counts only those
/// whose feature is offered (`vm_find_vqs`), and asks for 32 entries at least (`PAGE_REPORTING_CAPACITY`).
pub const QUEUES: &[u16] = &[64, 64, 64];

const FEATURE_PAGE_REPORTING: u64 = 1 << 5;
/// `num_pages` and `actual`, both 0.
const CONFIG: [u8; 8] = [0; 8];

/// What is offered. Not `PAGE_POISON`: pages come back as zeros.
#[must_use]
pub fn spec() -> DeviceSpec {
    DeviceSpec {
        name: NAME,
        device_type: DEVICE_TYPE,
        features: FEATURE_PAGE_REPORTING,
        queues: QUEUES,
        config: CONFIG.to_vec().into(),
    }
}

#[cfg(test)]
mod tests;
