//! `struct virtio_vsock_hdr` (section 5.10.6).

/// Length of the header on the wire.
pub(super) const HEADER_LEN: usize = 44;
/// The only socket type we speak: a stream.
pub(super) const TYPE_STREAM: u16 = 1;

/// `op`.
pub(super) mod op {
    pub(in super::super) const REQUEST: u16 = 1;
    pub(in super::super) const RESPONSE: u16 = 2;
    pub(in super::super) const RST: u16 = 3;
    pub(in super::super) const SHUTDOWN: u16 = 4;
    pub(in super::super) const RW: u16 = 5;
    pub(in super::super) const CREDIT_UPDATE: u16 = 6;
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// `flags` of SHUTDOWN: the sender will receive no more, will send no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
pub(super) const SHUTDOWN_SEND: u32 = 2;
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// A packet's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Length of the payload.
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut rest = bytes.as_slice();
        let header = Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        };
        debug_assert!(rest.is_empty());
        header
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(&self.src_cid.to_le_bytes());
        bytes.extend_from_slice(&self.dst_cid.to_le_bytes());
        bytes.extend_from_slice(&self.src_port.to_le_bytes());
        bytes.extend_from_slice(&self.dst_port.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.kind.to_le_bytes());
        bytes.extend_from_slice(&self.op.to_le_bytes());
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        bytes.extend_from_slice(&self.buf_alloc.to_le_bytes());
        bytes.extend_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The answer that ends the connection a packet belongs to, or does not belong to.
    pub(super) fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: op::RST,
            ..Self::default()
        }
    }
}

/// The first `N` bytes; the lengths of all fields together are those of the header.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk::<N>() {
        Some((front, tail)) => {
            *rest = tail;
            *front
        }
        None => unreachable!("the fields are as long as the header"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_header_survives_the_wire(bytes in prop::array::uniform32(any::<u8>()), more in prop::array::uniform12(any::<u8>())) {
            let mut wire = [0; HEADER_LEN];
            wire[..32].copy_from_slice(&bytes);
            wire[32..].copy_from_slice(&more);
            prop_assert_eq!(Header::parse(&wire).to_bytes(), wire.to_vec());
        }
    }

    #[test]
    fn fields_lie_where_the_specification_has_them() {
        let bytes = Header { src_cid: 3, dst_port: 0x11, kind: 1, op: 5, fwd_cnt: 9, ..Header::default() }.to_bytes();
        assert_eq!((bytes[0], bytes[20], bytes[28], bytes[30], bytes[40]), (3, 0x11, 1, 5, 9));
    }
}
