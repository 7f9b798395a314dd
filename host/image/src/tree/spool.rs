//! Tails of files of a tree under construction: one unlinked temporary file, appended to while
//! layers are merged, read at random while the image is written. It has no name, so a crash leaves
//! nothing behind and no path of an image ever reaches the host's file system.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Written through in pieces of this size.
const BUFFER: usize = 1 << 20;

/// The spool while it grows.
#[derive(Debug)]
pub struct SpoolWriter {
    file: BufWriter<File>,
    len: u64,
    copy: Box<[u8]>,
}

impl SpoolWriter {
    /// An empty spool, a nameless file on the file system of directory `dir`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new_in(dir: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER, tempfile::tempfile_in(dir)?);
        Ok(Self { file, len: 0, copy: vec![0; 128 << 10].into_boxed_slice() })
    }

    /// Appends exactly `len` bytes of `reader`; gives the offset where they begin.
    ///
    /// # Errors
    /// Those of reading and writing; `UnexpectedEof` when the reader ends early.
    pub fn append(&mut self, reader: &mut dyn Read, len: u64) -> io::Result<u64> {
        let start = self.len;
        let mut left = len;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.copy.len());
            let Some(piece) = self.copy.get_mut(..want) else { break };
            let got = reader.read(piece)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.file.write_all(piece.get(..got).unwrap_or_default())?;
            left -= got as u64;
            self.len += got as u64;
        }
        Ok(start)
    }

    /// Ends writing.
    ///
    /// # Errors
    /// When the last bytes cannot be written.
    pub fn finish(self) -> io::Result<Spool> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Spool { file, len: self.len })
    }
}

/// The finished spool.
#[derive(Debug)]
pub struct Spool {
    file: File,
    len: u64,
}

impl Spool {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// Those of reading; `UnexpectedEof` beyond the end.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was ever appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
