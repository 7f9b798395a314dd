//! A layer as the store keeps it: its tar stream taken apart into two files, from which it can be put together again.
//!
//! ```text
//! data        the contents of regular files in blocks of 4096 bytes, each file's from a new block; of a file with holes
//!             the chunks that have data. Every image with this layer has the blocks in its disk as they are.
//! rest.zst    everything else of the stream, compressed: headers, padding, and short tails of files, which the EROFS
//!             image keeps beside their inodes
//! ```
//!
//! Nothing says which block belongs to which entry: reading the entries in their order gives the same places again
//! ([`place`](super::place)).

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::budget::Budget;
use super::place::{Blocks, Place};
use super::problem::{EntryProblem, LayerProblem};
use super::tar::{Entry, Reader, Source, TarProblem};
use crate::erofs::{BLOCK, chunk};
use crate::{Digest, Limits};

const DATA: &str = "data";
const REST: &str = "rest.zst";

/// Headers compress well whatever is tried.
const REST_LEVEL: i32 = 1;
/// Written through in pieces of this size.
const BUFFER: usize = 256 << 10;
/// A gap in a file with holes that is left out rather than filled with zeros.
const GAP: u64 = 64 << 10;

/// One layer of the store.
#[derive(Debug, Clone)]
pub struct Stored {
    dir: PathBuf,
    diff_id: Digest,
    blocks: u32,
}

/// The tar stream of a stored layer without what is in `data`.
type Rest = BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>;

impl Stored {
    /// Takes the uncompressed tar stream `tar` apart and writes both files into the directory `dir`. Reads the stream to
    /// its end. Memory does not depend on what is in it: an entry's names and attributes at a time, at most 2 MiB
    /// (`EXTENSION_MAX`) and its sparse map, and fixed buffers.
    ///
    /// # Errors
    /// [`LayerProblem`]; what is in `dir` is then of no use.
    pub fn split(tar: &mut dyn Read, dir: &Path, limits: &Limits) -> Result<(), LayerProblem> {
        let file = |name| File::create_new(dir.join(name)).map_err(LayerProblem::Spool);
        let rest = zstd::stream::write::Encoder::new(file(REST)?, REST_LEVEL).map_err(LayerProblem::Spool)?;
        let mut data = Data::new(file(DATA)?);
        let mut reader = Reader::new(Tee { tar, rest, to_data: false, broken: None });
        let split = entries(&mut reader, &mut data, limits);
        let mut tee = reader.into_inner();
        // A stream that cannot be written explains why it could not be read.
        if let Some(cause) = tee.broken.take() {
            return Err(LayerProblem::Spool(cause));
        }
        let blocks = split?;
        // The layer's digest covers what stands behind the end mark too.
        let copied = io::copy(&mut tee, &mut io::sink());
        if let Some(cause) = tee.broken.take() {
            return Err(LayerProblem::Spool(cause));
        }
        copied.map_err(TarProblem::Io)?;
        let rest = tee.rest.finish().and_then(|file| file.sync_all());
        rest.and_then(|()| data.finish(blocks)).map_err(LayerProblem::Spool)
    }

    /// A layer that was taken apart in `dir`.
    ///
    /// # Errors
    /// When it is not there, or its data are no blocks.
    pub fn open(dir: &Path, diff_id: Digest) -> io::Result<Self> {
        let bytes = std::fs::metadata(dir.join(DATA))?.len();
        let blocks = u32::try_from(bytes / BLOCK).ok().filter(|_| bytes.is_multiple_of(BLOCK));
        let blocks = blocks.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its data are no blocks"))?;
        Ok(Self { dir: dir.to_owned(), diff_id, blocks })
    }

    /// Digest of the tar stream.
    #[must_use]
    pub fn diff_id(&self) -> Digest {
        self.diff_id
    }

    /// Blocks of [`data`](Self::data).
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// The file with the blocks.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// Its entries. What is in the data must be left out of each entry's bytes ([`Reader::leave_out`]).
    pub(super) fn entries(&self) -> io::Result<Reader<Rest>> {
        Ok(Reader::new(self.rest()?))
    }

    fn rest(&self) -> io::Result<Rest> {
        let decoder = zstd::stream::read::Decoder::new(File::open(self.dir.join(REST))?)?;
        Ok(BufReader::with_capacity(BUFFER, decoder))
    }

    /// Writes the tar stream as it was.
    ///
    /// # Errors
    /// When it cannot be read or written. Whether it is what it was, the caller sees by its digest.
    pub fn join(&self, out: &mut dyn Write) -> io::Result<()> {
        let damaged = |cause: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, cause.to_string());
        let mut data = BufReader::with_capacity(BUFFER, File::open(self.data())?);
        let mut blocks = Blocks::default();
        let mut reader = Reader::new(Echo { rest: self.rest()?, out });
        while let Some(entry) = reader.next().map_err(|error| damaged(&error))? {
            let place = blocks.place(&entry).map_err(|error| damaged(&error))?;
            let out = &mut *reader.source_mut().out;
            let start = u64::from(place.first) * BLOCK;
            match &place.runs {
                None => blocks_to(&mut data, start, place.body, out)?,
                Some(runs) => {
                    for (run, at) in chunk::places(entry.size, runs) {
                        blocks_to(&mut data, start.saturating_add(at), run.len, out)?;
                    }
                }
            }
            zeros_to(&mut data, start.saturating_add(place.blocks.saturating_mul(BLOCK)))?;
            reader.leave_out(place.body);
        }
        io::copy(&mut reader.into_inner(), &mut io::sink())?;
        Ok(())
    }
}

/// Copies `len` bytes that begin at `at`. Before them are zeros.
fn blocks_to(data: &mut BufReader<File>, at: u64, len: u64, out: &mut dyn Write) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    zeros_to(data, at)?;
    let copied = io::copy(&mut data.take(len), out)?;
    if copied == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Goes on to `at`, and sees that there is nothing on the way: what is behind a file's end in its last block can be seen
/// where it is mapped.
fn zeros_to(data: &mut BufReader<File>, at: u64) -> io::Result<()> {
    let mut left = at.saturating_sub(data.stream_position()?);
    while left > 0 {
        let buffer = data.fill_buf()?;
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let gap = buffer.get(..count).unwrap_or_default();
        if gap.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if gap.iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is something between its files"));
        }
        data.consume(count);
        left -= count as u64;
    }
    Ok(())
}

/// Takes all entries apart; gives the number of blocks.
fn entries(reader: &mut Reader<Tee<'_>>, data: &mut Data, limits: &Limits) -> Result<u64, LayerProblem> {
    let mut blocks = Blocks::default();
    let mut budget = Budget::new(*limits);
    while let Some(entry) = reader.next()? {
        budget.charge(&entry)?;
        let refused = |problem| LayerProblem::of_entry(&entry.path, problem);
        let place = blocks.place(&entry).map_err(refused)?;
        reader.source_mut().to_data = true;
        let written = body(reader, data, &entry, &place);
        reader.source_mut().to_data = false;
        written.map_err(|problem| match problem {
            Trouble::Reading(cause) => refused(EntryProblem::Tar(TarProblem::Io(cause))),
            Trouble::Writing(cause) => LayerProblem::Spool(cause),
        })?;
    }
    Ok(blocks.count())
}

/// One entry's stored bytes, but for its tail.
fn body(reader: &mut Reader<Tee<'_>>, data: &mut Data, entry: &Entry, place: &Place) -> Result<(), Trouble> {
    let start = u64::from(place.first) * BLOCK;
    match &place.runs {
        None if place.body == 0 => Ok(()),
        None => data.take(start, reader, place.body),
        Some(runs) => chunk::places(entry.size, runs).try_for_each(|(run, at)| data.take(start + at, reader, run.len)),
    }
}

enum Trouble {
    Reading(io::Error),
    Writing(io::Error),
}

/// The file of blocks while it grows.
struct Data {
    file: BufWriter<File>,
    at: u64,
    copy: Box<[u8]>,
}

impl Data {
    fn new(file: File) -> Self {
        Self { file: BufWriter::with_capacity(BUFFER, file), at: 0, copy: vec![0; BUFFER].into_boxed_slice() }
    }

    /// Writes `len` bytes of `reader` at offset `at`, which is not before what was written.
    fn take(&mut self, at: u64, reader: &mut dyn Read, len: u64) -> Result<(), Trouble> {
        self.advance(at).map_err(Trouble::Writing)?;
        let mut left = len;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.copy.len());
            let Some(piece) = self.copy.get_mut(..want) else { break };
            let got = reader.read(piece).map_err(Trouble::Reading)?;
            if got == 0 {
                return Err(Trouble::Reading(io::ErrorKind::UnexpectedEof.into()));
            }
            self.file.write_all(piece.get(..got).unwrap_or_default()).map_err(Trouble::Writing)?;
            left -= got as u64;
            self.at += got as u64;
        }
        Ok(())
    }

    fn advance(&mut self, to: u64) -> io::Result<()> {
        let gap = to.saturating_sub(self.at);
        if gap > GAP {
            self.file.seek(SeekFrom::Start(to))?;
        } else {
            io::copy(&mut io::repeat(0).take(gap), &mut self.file)?;
        }
        self.at = to;
        Ok(())
    }

    fn finish(mut self, blocks: u64) -> io::Result<()> {
        self.file.flush()?;
        let file = self.file.get_ref();
        file.set_len(blocks * BLOCK)?;
        file.sync_all()
    }
}

/// Copies what is read of the stream to `rest`, unless it goes to the data.
struct Tee<'a> {
    tar: &'a mut dyn Read,
    rest: zstd::stream::write::Encoder<'static, File>,
    to_data: bool,
    /// Why `rest` could not be written.
    broken: Option<io::Error>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.tar.read(buffer)?;
        if !self.to_data
            && let Err(cause) = self.rest.write_all(buffer.get(..got).unwrap_or_default())
        {
            self.broken = Some(cause);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(got)
    }
}

impl Source for Tee<'_> {
    fn skip(&mut self, len: u64) -> io::Result<()> {
        read_over(self, len)
    }
}

impl Source for Rest {
    fn skip(&mut self, len: u64) -> io::Result<()> {
        read_over(self, len)
    }
}

/// Copies what is read of the rest to `out`.
struct Echo<'a> {
    rest: Rest,
    out: &'a mut dyn Write,
}

impl Read for Echo<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.rest.read(buffer)?;
        self.out.write_all(buffer.get(..got).unwrap_or_default())?;
        Ok(got)
    }
}

impl Source for Echo<'_> {
    fn skip(&mut self, len: u64) -> io::Result<()> {
        read_over(self, len)
    }
}

fn read_over(source: &mut impl Read, len: u64) -> io::Result<()> {
    let skipped = io::copy(&mut source.take(len), &mut io::sink())?;
    if skipped < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
