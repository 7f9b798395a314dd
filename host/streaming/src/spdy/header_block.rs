//! Header blocks: names and values, compressed.
//!
//! A block is a u32 count of pairs, then of each pair the name and the value behind their u32 lengths. All blocks of
//! one direction are parts of one zlib stream that starts from a dictionary of the protocol and is flushed to a byte's
//! boundary after each block: whoever skips a block, or fails in one, can read none of the later ones.

use bytes::{Buf, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{ProtocolError, dictionary::dictionary};

/// The longest block when inflated, in bytes. What clients send is shorter than 1 KiB; zlib can make 1000 bytes of one.
pub(crate) const MAX_HEADER_BLOCK: usize = 64 * 1024;

/// The most pairs in a block. Clients send three.
const MAX_PAIRS: u32 = 64;

/// Names and values, as they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(Bytes, Bytes)>);

impl Headers {
    /// The first value of `name`, without regard to case, when it is text. A value may be a list whose items a NUL
    /// separates: then its first item.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))?;
        value.split(|byte| *byte == 0).next().and_then(|first| std::str::from_utf8(first).ok())
    }

    fn parse(block: Vec<u8>) -> Result<Self, ProtocolError> {
        let mut rest = Bytes::from(block);
        let count = rest.try_get_u32().map_err(|_| ProtocolError::HeaderBlock("it ends in its count"))?;
        if count > MAX_PAIRS {
            return Err(ProtocolError::HeaderBlock("it has more than 64 pairs"));
        }
        let mut pairs = Vec::new();
        for _ in 0..count {
            let name = text(&mut rest)?;
            let value = text(&mut rest)?;
            pairs.push((name, value));
        }
        if rest.is_empty() { Ok(Self(pairs)) } else { Err(ProtocolError::HeaderBlock("it has bytes behind its pairs")) }
    }

    fn block(&self) -> Vec<u8> {
        let mut block = length(self.0.len()).to_vec();
        for (name, value) in &self.0 {
            for text in [name, value] {
                block.extend_from_slice(&length(text.len()));
                block.extend_from_slice(text);
            }
        }
        block
    }
}

fn text(rest: &mut Bytes) -> Result<Bytes, ProtocolError> {
    let ends = |_| ProtocolError::HeaderBlock("it ends within a pair");
    let length = usize::try_from(rest.try_get_u32().map_err(ends)?).unwrap_or(usize::MAX);
    if length > rest.len() {
        return Err(ProtocolError::HeaderBlock("it ends within a pair"));
    }
    Ok(rest.split_to(length))
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Reads the blocks of one direction, in their order.
#[derive(Debug)]
pub(crate) struct Inflater {
    zlib: Decompress,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self { zlib: Decompress::new(true) }
    }

    /// Reads the next block.
    ///
    /// # Errors
    ///
    /// It is no zlib data, it is longer than [`MAX_HEADER_BLOCK`], or its lengths do not add up. No later block can be
    /// read then.
    pub(crate) fn read(&mut self, mut compressed: &[u8]) -> Result<Headers, ProtocolError> {
        let mut block = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let (read_before, made_before) = (self.zlib.total_in(), self.zlib.total_out());
            let status = match self.zlib.decompress(compressed, &mut chunk, FlushDecompress::Sync) {
                Ok(status) => status,
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(&dictionary()).map_err(|_| ProtocolError::Compression)?;
                    Status::Ok
                }
                Err(_) => return Err(ProtocolError::Compression),
            };
            let read = usize::try_from(self.zlib.total_in() - read_before).unwrap_or(usize::MAX);
            let made = usize::try_from(self.zlib.total_out() - made_before).unwrap_or(usize::MAX);
            compressed = compressed.get(read..).unwrap_or_default();
            block.extend_from_slice(chunk.get(..made).unwrap_or_default());
            if block.len() > MAX_HEADER_BLOCK {
                return Err(ProtocolError::HeaderBlock("it is longer than 64 KiB"));
            }
            let stuck = read == 0 && made == 0;
            match status {
                // A whole chunk may mean that there is more to come of bytes that are already read.
                Status::Ok | Status::BufError if made == chunk.len() || !(stuck || compressed.is_empty()) => {}
                Status::Ok | Status::BufError if compressed.is_empty() => return Headers::parse(block),
                _ => return Err(ProtocolError::Compression),
            }
        }
    }
}

/// Writes the blocks of one direction, in their order.
#[derive(Debug)]
pub(crate) struct Deflater {
    zlib: Compress,
}

impl Deflater {
    pub(crate) fn new() -> Self {
        let mut zlib = Compress::new(Compression::fast(), true);
        // It fails only behind the first byte of the stream.
        let _ = zlib.set_dictionary(&dictionary());
        Self { zlib }
    }

    /// The next block, compressed.
    pub(crate) fn write(&mut self, headers: &Headers) -> Vec<u8> {
        let block = headers.block();
        let mut rest = block.as_slice();
        let mut compressed = Vec::with_capacity(128);
        loop {
            compressed.reserve(128);
            let before = self.zlib.total_in();
            let done = self.zlib.compress_vec(rest, &mut compressed, FlushCompress::Sync);
            let read = usize::try_from(self.zlib.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(read..).unwrap_or_default();
            // The flush is complete once there is room left behind it.
            if done.is_err() || (rest.is_empty() && compressed.len() < compressed.capacity()) {
                return compressed;
            }
        }
    }
}
