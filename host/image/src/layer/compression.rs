//! How a layer or an archive is compressed, told by its first bytes as every container runtime
//! does; the media type only says whether it is a layer at all.

use std::io::{self, BufRead, BufReader, Read};

/// A compression this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A bare tar stream.
    None,
    /// RFC 1952, one or more members.
    Gzip,
    /// RFC 8878, one or more frames.
    Zstd,
}

impl Compression {
    /// Of a stream that begins with these bytes.
    ///
    /// # Errors
    /// `Unsupported` for compressions that images must not have (bzip2, xz): the OCI image
    /// specification knows gzip and zstd.
    pub fn of(start: &[u8]) -> io::Result<Self> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err(unsupported("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(unsupported("xz")),
            _ => Ok(Self::None),
        }
    }
}

fn unsupported(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("it is compressed with {name}, which images do not use: compress it with gzip or zstd"),
    )
}

/// The uncompressed bytes of `reader`.
///
/// # Errors
/// Those of [`Compression::of`] and of reading the first bytes.
pub fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(256 << 10, reader);
    // Short reads are possible: four bytes are needed to decide.
    let start = reader.fill_buf()?;
    if start.len() >= 6 || start.is_empty() {
        let compression = Compression::of(start)?;
        return wrap(compression, reader);
    }
    let mut start = Vec::new();
    (&mut reader).take(6).read_to_end(&mut start)?;
    let compression = Compression::of(&start)?;
    wrap(compression, BufReader::new(io::Cursor::new(start).chain(reader)))
}

fn wrap<'a>(compression: Compression, reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(1);
            self.0.read(&mut buffer[..len])
        }
    }

    #[test]
    fn gzip_zstd_and_nothing_are_told_by_their_first_bytes() {
        let text = b"some text that is not compressed".to_vec();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &text).unwrap();
        for bytes in [text.clone(), gzip.finish().unwrap(), zstd::encode_all(&text[..], 1).unwrap()] {
            for reader in [Box::new(&bytes[..]) as Box<dyn Read>, Box::new(Drip(&bytes))] {
                let mut plain = Vec::new();
                decompress(reader).unwrap().read_to_end(&mut plain).unwrap();
                assert_eq!(plain, text);
            }
        }
    }

    #[test]
    fn other_compressions_are_named_in_the_refusal() {
        let error = decompress(&b"BZh91AY&SY"[..]).err().unwrap();
        assert!(error.to_string().contains("bzip2"));
    }
}
