//! Reads frames from bytes that come in any pieces.

use bytes::{Buf, Bytes, BytesMut};

use super::ProtocolError;
use super::frame::{
    FIN, Frame, GOAWAY, HEAD, HEADERS, ID, MAX_CONTROL, PING, RST_STREAM, SYN_REPLY, SYN_STREAM, VERSION,
};
use super::header_block::Inflater;

/// Reads one direction of a connection.
///
/// It keeps no bytes: what it cannot use yet stays in its caller's buffer, at most a control frame of 1 MiB. Data is
/// passed on in the pieces in which it comes.
#[derive(Debug)]
pub(crate) struct Decoder {
    inflater: Inflater,
    within: Within,
}

#[derive(Debug)]
enum Within {
    /// Between two frames, or in a head.
    Head,
    /// In a control frame's body, `length` bytes.
    Control { kind: u16, fin: bool, length: usize },
    /// In a data frame, `left` bytes before its end. `fin`: with its end the client's side of the stream ends.
    Data { id: u32, fin: bool, left: usize },
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { inflater: Inflater::new(), within: Within::Head }
    }

    /// Takes the next frame, or piece of a data frame, from the front of `input`; nothing when there is too little yet.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`], behind which no frame can be read.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        loop {
            match self.within {
                Within::Head => {
                    let Some(within) = head(input)? else { return Ok(None) };
                    self.within = within;
                }
                Within::Control { kind, fin, length } => {
                    if input.len() < length {
                        return Ok(None);
                    }
                    self.within = Within::Head;
                    let body = input.split_to(length);
                    return self.control(kind, fin, &body).map(Some);
                }
                Within::Data { id, fin, left } => {
                    let taken = left.min(input.len());
                    if taken == 0 && left > 0 {
                        return Ok(None);
                    }
                    let left = left.saturating_sub(taken);
                    // A copy: a short piece must not keep the whole of the caller's buffer alive.
                    let bytes = Bytes::copy_from_slice(input.get(..taken).unwrap_or_default());
                    input.advance(taken);
                    self.within = if left == 0 { Within::Head } else { Within::Data { id, fin, left } };
                    return Ok(Some(Frame::Data { id, fin: fin && left == 0, bytes }));
                }
            }
        }
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: &[u8]) -> Result<Frame, ProtocolError> {
        let body = &mut body;
        match kind {
            SYN_STREAM => {
                let id = id("SYN_STREAM", body)?;
                // The stream that it belongs to, its priority and its credential: nothing depends on them.
                body.try_get_u32().and_then(|_| body.try_get_u16()).map_err(|_| ProtocolError::Short("SYN_STREAM"))?;
                Ok(Frame::SynStream { id, fin, headers: self.inflater.read(body)? })
            }
            SYN_REPLY => Ok(Frame::SynReply { id: id("SYN_REPLY", body)?, fin, headers: self.inflater.read(body)? }),
            HEADERS => Ok(Frame::Headers { id: id("HEADERS", body)?, fin, headers: self.inflater.read(body)? }),
            RST_STREAM => Ok(Frame::RstStream { id: id("RST_STREAM", body)?, status: number("RST_STREAM", body)? }),
            PING => Ok(Frame::Ping { id: number("PING", body)? }),
            // SPDY/2 had no status.
            GOAWAY => Ok(Frame::GoAway { last: id("GOAWAY", body)?, status: body.try_get_u32().unwrap_or(0) }),
            kind => Ok(Frame::Other { kind }),
        }
    }
}

fn head(input: &mut BytesMut) -> Result<Option<Within>, ProtocolError> {
    if input.len() < HEAD {
        return Ok(None);
    }
    let (first, second) = (input.get_u32(), input.get_u32());
    let [flags, length @ ..] = second.to_be_bytes();
    let [a, b, c] = length;
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
    let fin = flags & FIN != 0;
    if first & !ID == 0 {
        return Ok(Some(Within::Data { id: first, fin, left: length }));
    }
    let [high, low, kind @ ..] = first.to_be_bytes();
    let version = u16::from_be_bytes([high & 0x7f, low]);
    if version != VERSION {
        return Err(ProtocolError::Version(version));
    }
    if length > MAX_CONTROL {
        return Err(ProtocolError::TooLong(length));
    }
    Ok(Some(Within::Control { kind: u16::from_be_bytes(kind), fin, length }))
}

fn id(frame: &'static str, body: &mut &[u8]) -> Result<u32, ProtocolError> {
    Ok(number(frame, body)? & ID)
}

fn number(frame: &'static str, body: &mut &[u8]) -> Result<u32, ProtocolError> {
    body.try_get_u32().map_err(|_| ProtocolError::Short(frame))
}
