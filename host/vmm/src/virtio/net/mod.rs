//! virtio-net over a tap (section 5.1).
//!
//! `tap` is the host's end, `device` the loop between it and the two queues. The header in front of each frame is
//! passed through unread: the tap speaks the same `virtio_net_hdr_v1`, and the kernel checks what it says.

mod device;
pub mod tap;

use super::state::DeviceSpec;

pub use device::Net;
pub use tap::Tap;

/// Virtio device id.
pub const DEVICE_TYPE: u32 = 1;
pub const NAME: &str = "net";
/// Receive and transmit.
pub const QUEUES: &[u16] = &[256, 256];

/// `struct virtio_net_hdr_v1`.
const HEADER_LEN: usize = 12;
/// Where `num_buffers` stands in it.
const NUM_BUFFERS: std::ops::Range<usize> = 10..12;
/// Header, Ethernet header with a VLAN tag, and the largest IP packet: nothing longer comes or goes.
const FRAME_MAX: usize = HEADER_LEN + 18 + 65_535;
/// Least MTU that a driver takes (`ETH_MIN_MTU`).
pub const MTU_MIN: u16 = 68;

const FEATURE_CSUM: u64 = 1 << 0;
const FEATURE_GUEST_CSUM: u64 = 1 << 1;
const FEATURE_MTU: u64 = 1 << 3;
const FEATURE_MAC: u64 = 1 << 5;
const FEATURE_GUEST_TSO4: u64 = 1 << 7;
const FEATURE_GUEST_TSO6: u64 = 1 << 8;
const FEATURE_HOST_TSO4: u64 = 1 << 11;
const FEATURE_HOST_TSO6: u64 = 1 << 12;
const FEATURE_MRG_RXBUF: u64 = 1 << 15;

/// Why a network device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("{0:02x?} is no unicast Ethernet address: the lowest bit of its first byte must be 0, and some bit 1")]
    Mac([u8; 6]),
    #[error("an MTU of {0} is less than the {MTU_MIN} that Ethernet needs")]
    Mtu(u16),
    #[error("the network device's descriptor is no tap: {0}")]
    NoTap(std::io::Error),
    #[error("the tap must be opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR; its flags are {flags:#06x}")]
    Flags { flags: i32 },
    #[error("the tap cannot be set up: {0}")]
    Setup(std::io::Error),
}

/// What is offered, with the configuration space of section 5.1.4: MAC, status, pairs of queues, MTU.
pub fn spec(mac: [u8; 6], mtu: Option<u16>) -> Result<DeviceSpec, NetError> {
    if mac.first().is_none_or(|first| first & 1 != 0) || mac == [0; 6] {
        return Err(NetError::Mac(mac));
    }
    if let Some(mtu) = mtu.filter(|mtu| *mtu < MTU_MIN) {
        return Err(NetError::Mtu(mtu));
    }
    let mut features = FEATURE_CSUM
        | FEATURE_GUEST_CSUM
        | FEATURE_MAC
        | FEATURE_GUEST_TSO4
        | FEATURE_GUEST_TSO6
        | FEATURE_HOST_TSO4
        | FEATURE_HOST_TSO6
        | FEATURE_MRG_RXBUF;
    let mut config = mac.to_vec();
    config.extend([0; 4]);
    if let Some(mtu) = mtu {
        features |= FEATURE_MTU;
        config.extend(mtu.to_le_bytes());
    }
    Ok(DeviceSpec { name: NAME, device_type: DEVICE_TYPE, features, queues: QUEUES, config: config.into() })
}

#[cfg(test)]
mod tests;
