//! Frames, and how they are written.
//!
//! Every frame has a head of 8 bytes, big-endian. A control frame: one bit that is 1, the version in 15 bits, the type
//! in 16, flags in 8, the body's length in 24. A data frame: one bit that is 0, the stream's id in 31, flags in 8, the
//! length in 24.

use bytes::{BufMut, Bytes, BytesMut};

use super::header_block::{Deflater, Headers};

/// The version in control frames: 3.1 differs from 3 in flow control alone, which nobody uses here.
pub(super) const VERSION: u16 = 3;
/// The longest head.
pub(super) const HEAD: usize = 8;
/// The longest body of a control frame, in bytes. Data frames are passed on in pieces and may have any length.
pub(super) const MAX_CONTROL: usize = 1024 * 1024;
/// The most data in one frame that is written, in bytes.
pub(crate) const MAX_DATA: usize = 32 * 1024;
/// The flag of a frame behind which its sender sends no more on this stream.
pub(super) const FIN: u8 = 1;
/// A stream's id has 31 bits.
pub(super) const ID: u32 = 0x7fff_ffff;

pub(super) const SYN_STREAM: u16 = 1;
pub(super) const SYN_REPLY: u16 = 2;
pub(super) const RST_STREAM: u16 = 3;
pub(super) const PING: u16 = 6;
pub(super) const GOAWAY: u16 = 7;
pub(super) const HEADERS: u16 = 8;

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetStatus {
    ProtocolError,
    RefusedStream,
    Cancel,
}

impl ResetStatus {
    fn code(self) -> u32 {
        match self {
            Self::ProtocolError => 1,
            Self::RefusedStream => 3,
            Self::Cancel => 5,
        }
    }
}

/// A frame, or a piece of a data frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A stream is opened. `fin`: its opener will send nothing on it.
    SynStream { id: u32, fin: bool, headers: Headers },
    /// A stream is accepted.
    SynReply { id: u32, fin: bool, headers: Headers },
    /// A stream has ended in both directions.
    RstStream { id: u32, status: u32 },
    /// To be returned when its id is of the peer.
    Ping { id: u32 },
    /// The sender will accept no streams behind `last`. Status 0 is no error, 1 a protocol error.
    GoAway { last: u32, status: u32 },
    /// More headers of a stream.
    Headers { id: u32, fin: bool, headers: Headers },
    /// Data of a stream.
    Data { id: u32, fin: bool, bytes: Bytes },
    /// What needs no answer: SETTINGS, WINDOW_UPDATE and types that SPDY/3.1 does not have.
    Other { kind: u16 },
}

/// Writes the frames of one direction.
#[derive(Debug)]
pub(crate) struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { deflater: Deflater::new() }
    }

    /// Appends the acceptance of a stream.
    pub(crate) fn syn_reply(&mut self, id: u32, headers: &Headers, to: &mut BytesMut) {
        let block = self.deflater.write(headers);
        control(SYN_REPLY, 0, &[&id.to_be_bytes(), &block], to);
    }

    /// Appends the opening of a stream.
    #[cfg(test)]
    pub(crate) fn syn_stream(&mut self, id: u32, fin: bool, headers: &Headers, to: &mut BytesMut) {
        let block = self.deflater.write(headers);
        let flags = if fin { FIN } else { 0 };
        control(SYN_STREAM, flags, &[&id.to_be_bytes(), &[0; 6], &block], to);
    }

    /// Appends more headers of a stream.
    #[cfg(test)]
    pub(crate) fn headers(&mut self, id: u32, fin: bool, headers: &Headers, to: &mut BytesMut) {
        let block = self.deflater.write(headers);
        control(HEADERS, if fin { FIN } else { 0 }, &[&id.to_be_bytes(), &block], to);
    }
}

/// Appends the end of a stream in both directions.
pub(crate) fn rst_stream(id: u32, status: ResetStatus, to: &mut BytesMut) {
    control(RST_STREAM, 0, &[&id.to_be_bytes(), &status.code().to_be_bytes()], to);
}

/// Appends a ping.
pub(crate) fn ping(id: u32, to: &mut BytesMut) {
    control(PING, 0, &[&id.to_be_bytes()], to);
}

/// Appends the announcement that no stream behind `last` is accepted.
pub(crate) fn go_away(last: u32, status: u32, to: &mut BytesMut) {
    control(GOAWAY, 0, &[&last.to_be_bytes(), &status.to_be_bytes()], to);
}

/// Appends data of at most [`MAX_DATA`] bytes.
pub(crate) fn data(id: u32, fin: bool, bytes: &[u8], to: &mut BytesMut) {
    to.put_u32(id & ID);
    put_flags_and_length(if fin { FIN } else { 0 }, bytes.len(), to);
    to.put_slice(bytes);
}

fn control(kind: u16, flags: u8, body: &[&[u8]], to: &mut BytesMut) {
    to.put_u16(0x8000 | VERSION);
    to.put_u16(kind);
    put_flags_and_length(flags, body.iter().map(|part| part.len()).sum(), to);
    for part in body {
        to.put_slice(part);
    }
}

/// What is written here is far shorter than the 24 bits of a length allow.
fn put_flags_and_length(flags: u8, length: usize, to: &mut BytesMut) {
    let length = u32::try_from(length).unwrap_or(u32::MAX) & 0x00ff_ffff;
    to.put_u32((u32::from(flags) << 24) | length);
}
