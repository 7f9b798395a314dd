//! `struct virtio_mem_req` and `virtio_mem_resp` (section 5.15.6.1).

/// Bytes of a request, whatever its type.
pub(super) const REQUEST_LEN: usize = 24;
/// Bytes of a response; only STATE uses the last two.
pub(super) const RESPONSE_LEN: usize = 10;

const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;

/// Blocks as the driver names them, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Guest-physical.
    pub(super) address: u64,
    pub(super) blocks: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Plug(Range),
    Unplug(Range),
    UnplugAll,
    State(Range),
}

impl Request {
    /// `None` for a type that does not exist.
    pub(super) fn parse(bytes: [u8; REQUEST_LEN]) -> Option<Self> {
        // type, padding[3], then addr, nb_blocks, padding[3].
        let [t0, t1, _, _, _, _, _, _, rest @ ..] = bytes;
        let [a0, a1, a2, a3, a4, a5, a6, a7, n0, n1, ..] = rest;
        let address = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        let range = Range { address, blocks: u16::from_le_bytes([n0, n1]) };
        match u16::from_le_bytes([t0, t1]) {
            PLUG => Some(Self::Plug(range)),
            UNPLUG => Some(Self::Unplug(range)),
            UNPLUG_ALL => Some(Self::UnplugAll),
            STATE => Some(Self::State(range)),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockState {
    Plugged,
    Unplugged,
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    Ack,
    /// Of a STATE request.
    AckState(BlockState),
    /// More than what is requested would be plugged.
    Nack,
    /// Not now.
    Busy,
    /// The request itself is wrong.
    Error,
}

impl Response {
    pub(super) fn bytes(self) -> [u8; RESPONSE_LEN] {
        let (kind, state) = match self {
            Self::Ack | Self::AckState(BlockState::Plugged) => (0, 0),
            Self::AckState(BlockState::Unplugged) => (0, 1),
            Self::AckState(BlockState::Mixed) => (0, 2),
            Self::Nack => (1, 0),
            Self::Busy => (2, 0),
            Self::Error => (3, 0),
        };
        [kind, 0, 0, 0, 0, 0, 0, 0, state, 0]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_fields_lie_where_the_driver_puts_them() {
        let mut bytes = [0xee; REQUEST_LEN];
        bytes[..2].copy_from_slice(&1_u16.to_le_bytes());
        bytes[8..16].copy_from_slice(&0x1_0020_0000_u64.to_le_bytes());
        bytes[16..18].copy_from_slice(&3_u16.to_le_bytes());
        assert_eq!(Request::parse(bytes), Some(Request::Unplug(Range { address: 0x1_0020_0000, blocks: 3 })));
        assert_eq!(Response::AckState(BlockState::Mixed).bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    }

    proptest! {
        #[test]
        fn only_the_four_types_are_requests(bytes in any::<[u8; REQUEST_LEN]>()) {
            let kind = u16::from_le_bytes([bytes[0], bytes[1]]);
            prop_assert_eq!(Request::parse(bytes).is_some(), kind < 4);
        }
    }
}
