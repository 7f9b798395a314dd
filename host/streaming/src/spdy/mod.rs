//! SPDY/3.1, the server's side, as far as Kubernetes' clients speak it.
//!
//! `frame` has the frames and writes them, `decoder` reads them from bytes that come in any pieces, `header_block` is
//! the compression of headers, `connection` runs a connection: it hands out the streams that the client opens.
//! `remotecommand` and `port_forward` say what the streams are for.
//!
//! Kubernetes' clients know no flow control: they neither send WINDOW_UPDATE nor heed it, and a server that waited for
//! one would stop after 64 KiB. What holds a writer back is TCP alone.
//!
//! The protocol is SPDY draft 3.1; where clients differ from it, github.com/moby/spdystream is what they are.

pub(crate) mod connection;
mod decoder;
mod dictionary;
pub(crate) mod frame;
pub(crate) mod header_block;
pub(crate) mod port_forward;
pub(crate) mod remotecommand;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use decoder::Decoder;

/// What a client sent that is not SPDY/3.1. The connection has to end: later frames cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("a control frame is of SPDY version {0}, and version 3 is what is spoken")]
    Version(u16),
    #[error("a control frame has {0} bytes, and at most 1 MiB is taken")]
    TooLong(usize),
    #[error("a {0} frame is shorter than its fields")]
    Short(&'static str),
    #[error("a header block is not zlib data with SPDY's dictionary")]
    Compression,
    #[error("a header block is not valid: {0}")]
    HeaderBlock(&'static str),
}
