//! The entries of a tar stream.
//!
//! Fields are decoded by the `tar` crate's [`Header`](::tar::Header); the iteration is our own,
//! because that crate's reader cuts PAX records at newlines (which loses file capabilities), reads
//! extension headers of any size into memory and turns holes into zeros.

use std::io::{self, Read};

use thiserror::Error;

use super::pax::Pax;
use super::sparse::{self, Run};
use crate::tree::{Device, Xattrs};

/// Tar's unit.
pub(super) const BLOCK: usize = 512;

/// Largest extension header (long name, PAX) that is read into memory.
const EXTENSION_MAX: u64 = 1 << 20;

/// What is wrong with a tar stream.
#[derive(Debug, Error)]
pub enum TarProblem {
    /// The stream could not be read or decompressed.
    #[error("its data cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A header's sum is not that of its bytes.
    #[error("a tar header's checksum does not match")]
    Checksum,
    /// A field of a header is not what it must be.
    #[error("a tar header's {0} is malformed")]
    Field(&'static str),
    /// A PAX extended header is malformed.
    #[error("a PAX header is malformed: {0}")]
    Pax(&'static str),
    /// A global PAX header wants to change all entries.
    #[error("a global PAX header changes all entries, which no container runtime honours")]
    Global,
    /// A sparse file's map is malformed.
    #[error("a sparse file is malformed: {0}")]
    Sparse(&'static str),
    /// An extension header is larger than [`EXTENSION_MAX`].
    #[error("an extension header is larger than {EXTENSION_MAX} bytes")]
    LargeExtension,
    /// An extension header is not followed by an entry.
    #[error("the archive ends after an extension header")]
    Dangling,
    /// One zero block, then something else: readers disagree on what such a stream holds.
    #[error("entries follow the end-of-archive mark")]
    AfterEnd,
    /// A type of entry that no container runtime knows.
    #[error("it has the unknown entry type {0:#04x}")]
    Type(u8),
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    HardLink,
    Symlink,
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
}

/// One entry; its stored bytes are then read from the [`Reader`].
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Xattrs,
    /// Length of the file, holes included.
    pub(super) size: u64,
    /// Bytes stored in the archive.
    pub(crate) stored: u64,
    /// Where the stored bytes belong, for a sparse file.
    pub(crate) runs: Option<Vec<Run>>,
}

/// Extension headers met on the way to an entry.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// A stream that can pass over bytes, perhaps without reading them.
pub(crate) trait Source: Read {
    /// Passes over `len` bytes.
    ///
    /// # Errors
    /// Those of the stream. A source that seeks may only notice at the next read that it ended.
    fn skip(&mut self, len: u64) -> io::Result<()>;
}

/// Reads entries one after the other. As [`Read`] it gives the stored bytes of the last entry.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    inner: R,
    left: u64,
    padding: u64,
}

impl<R: Source> Reader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The next entry, what is left of the last one skipped; `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarProblem> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                let dangling = extensions.pax.is_some() || extensions.name.is_some() || extensions.link.is_some();
                return if dangling { Err(TarProblem::Dangling) } else { Ok(None) };
            };
            let size = header.entry_size().map_err(|_| TarProblem::Field("size"))?;
            match header.as_bytes().get(156) {
                Some(b'x') => extensions.pax = Some(Pax::parse(&self.extension(size)?)?),
                Some(b'g') => {
                    if !Pax::parse(&self.extension(size)?)?.is_harmless() {
                        return Err(TarProblem::Global);
                    }
                }
                Some(b'L') => extensions.name = Some(until_nul(self.extension(size)?)),
                Some(b'K') => extensions.link = Some(until_nul(self.extension(size)?)),
                _ => return self.entry(&header, size, extensions).map(Some),
            }
        }
    }

    /// What follows the archive's end mark, to the end of the stream.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// The stream, standing where the last entry's data begin.
    pub(crate) fn source(&self) -> &R {
        &self.inner
    }

    pub(super) fn source_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The next `len` stored bytes of the entry are not in the stream.
    pub(super) fn leave_out(&mut self, len: u64) {
        self.left = self.left.saturating_sub(len);
    }

    fn header(&mut self) -> Result<Option<::tar::Header>, TarProblem> {
        self.skip_rest()?;
        let mut header = ::tar::Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            let mut second = [0; BLOCK];
            if self.block(&mut second)? && second.iter().any(|byte| *byte != 0) {
                return Err(TarProblem::AfterEnd);
            }
            return Ok(None);
        }
        let stated = header.cksum().map_err(|_| TarProblem::Checksum)?;
        let sum = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) })
            .sum::<u32>();
        if stated != sum {
            return Err(TarProblem::Checksum);
        }
        zero_blank_fields(&mut header);
        Ok(Some(header))
    }

    /// Fills one block; `false` when the stream ended just before it.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let (first, rest) = block.split_at_mut(1);
        loop {
            match self.inner.read(first) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.inner.read_exact(rest)?;
        Ok(true)
    }

    fn begin(&mut self, stored: u64) -> Result<(), TarProblem> {
        self.left = stored;
        self.padding = stored.checked_next_multiple_of(BLOCK as u64).ok_or(TarProblem::Field("size"))? - stored;
        Ok(())
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        if rest == 0 { Ok(()) } else { self.inner.skip(rest) }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarProblem> {
        if size > EXTENSION_MAX {
            return Err(TarProblem::LargeExtension);
        }
        self.begin(size)?;
        let mut payload = Vec::new();
        self.read_to_end(&mut payload)?;
        Ok(payload)
    }

    fn entry(&mut self, header: &::tar::Header, size: u64, extensions: Extensions) -> Result<Entry, TarProblem> {
        let pax = extensions.pax.unwrap_or_default();
        // The order in which GNU tar and Go's archive/tar let them win.
        let path = extensions.name.or(pax.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions
            .link
            .or(pax.link)
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let type_flag = header.as_bytes().get(156).copied().unwrap_or_default();
        let kind = match type_flag {
            // Before POSIX a directory was a file whose name ends in a slash.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice(device(header)?),
            b'4' => EntryKind::BlockDevice(device(header)?),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(TarProblem::Type(other)),
        };
        // Only files have data, whatever their size field says, for GNU tar and Go alike.
        let mut stored = if kind == EntryKind::File { pax.size.unwrap_or(size) } else { 0 };
        let (path, size, runs) = if type_flag == b'S' {
            let (size, runs) = sparse::old_gnu(header, &mut self.inner, stored)?;
            self.begin(stored)?;
            (path, size, Some(runs))
        } else {
            self.begin(stored)?;
            match (kind == EntryKind::File).then(|| pax.sparse.runs(self, &mut stored)).transpose()?.flatten() {
                Some((size, runs)) => (pax.sparse.name.unwrap_or(path), size, Some(runs)),
                None => (path, stored, None),
            }
        };
        let field = |value: Option<u64>, header: io::Result<u64>, name| {
            let value = value.map_or(header, Ok).map_err(|_| TarProblem::Field(name))?;
            u32::try_from(value).map_err(|_| TarProblem::Field(name))
        };
        let mode = header.mode().map_err(|_| TarProblem::Field("mode"))? & 0o7777;
        Ok(Entry {
            path,
            link,
            kind,
            mode: u16::try_from(mode).map_err(|_| TarProblem::Field("mode"))?,
            uid: field(pax.uid, header.uid(), "uid")?,
            gid: field(pax.gid, header.gid(), "gid")?,
            mtime: match pax.mtime {
                Some(time) => time,
                // GNU tar stores a negative time in base 256, two's complement.
                None => (header.mtime().map_err(|_| TarProblem::Field("mtime"))?.cast_signed(), 0),
            },
            xattrs: pax.xattrs,
            size,
            stored,
            runs,
        })
    }
}

impl<R: Source> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..want).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let got = self.inner.read(buffer)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= got as u64;
        Ok(got)
    }
}

/// An empty numeric field means 0 to GNU tar and Go; the `tar` crate would refuse it.
fn zero_blank_fields(header: &mut ::tar::Header) {
    // mode, uid, gid, size, mtime
    for field in [100..108, 108..116, 116..124, 124..136, 136..148] {
        if let Some(field) = header.as_mut_bytes().get_mut(field)
            && field.iter().all(|byte| matches!(byte, 0 | b' '))
        {
            field.fill(b'0');
        }
    }
}

fn device(header: &::tar::Header) -> Result<Device, TarProblem> {
    let major = header.device_major().ok().flatten();
    let minor = header.device_minor().ok().flatten();
    major.zip(minor).and_then(|(major, minor)| Device::new(major, minor)).ok_or(TarProblem::Field("device number"))
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    name
}
