//! Streams a planned image out, front to back.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::inode::{self, Fields, Layout};
use super::plan::{Placed, Plan, chunk_blocks, chunks_with_data};
use super::{BLOCK, BLOCK_LEN, Options, WriteError, dirent, superblock, xattr};
use crate::tree::{Content, Extent, Kind, Spool, Tree};

/// Runs at least this long are copied inside the kernel.
const COPY_IN_KERNEL: u64 = 64 << 10;

/// A chunk that is a hole (`EROFS_NULL_ADDR`).
const HOLE: u32 = u32::MAX;

const ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

pub(super) fn write(
    plan: &Plan,
    tree: &Tree,
    spool: &Spool,
    out: &File,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), WriteError> {
    let mut writer = Writer { plan, tree, spool, out: Output::new(out), progress, reported: 0 };
    writer.out.pad_to(superblock::OFFSET as u64)?;
    writer.out.put(&superblock::encode(plan, options))?;
    for place in plan.placed() {
        writer.inode(place)?;
        writer.report();
    }
    for place in plan.placed() {
        if place.blocks > 0 {
            writer.blocks(place)?;
            writer.report();
        }
    }
    writer.out.pad_to(plan.bytes())?;
    let first_block = writer.out.flush()?;
    out.write_all_at(&superblock::checksum(&first_block).to_le_bytes(), superblock::CHECKSUM_OFFSET)?;
    (writer.progress)(plan.bytes(), plan.bytes());
    Ok(())
}

struct Writer<'a> {
    plan: &'a Plan,
    tree: &'a Tree,
    spool: &'a Spool,
    out: Output<'a>,
    progress: &'a mut dyn FnMut(u64, u64),
    reported: u64,
}

impl Writer<'_> {
    fn report(&mut self) {
        if self.out.at >= self.reported + (1 << 20) {
            self.reported = self.out.at;
            (self.progress)(self.out.at, self.plan.bytes());
        }
    }

    /// The inode and what stands beside it.
    fn inode(&mut self, place: &Placed) -> io::Result<()> {
        let node = self.tree.node(place.node);
        self.out.pad_to(place.offset())?;
        let fields = Fields {
            shape: place.shape,
            layout: place.layout,
            xattr_count: xattr::count(place.xattr_len as usize).unwrap_or_default(),
            size: place.size,
            nlink: place.nlink,
            block: place.block,
            ino: u32::try_from(place.nid).unwrap_or_default(),
        };
        let mut head = Vec::with_capacity(64);
        inode::encode(node, &fields, &mut head);
        if let Some(xattrs) = &node.xattrs {
            xattr::encode(xattrs, &mut head);
        }
        self.out.put(&head)?;
        match (&node.kind, place.layout) {
            (Kind::File { size, content: Content::Sparse(extents) }, Layout::Chunked { bits }) => {
                self.chunk_map(extents, *size, bits, place.block)
            }
            (_, Layout::Inline) => self.data(place, place.size - place.tail_len(), place.size),
            _ => Ok(()),
        }
    }

    fn chunk_map(&mut self, extents: &[Extent], size: u64, bits: u8, first_block: u32) -> io::Result<()> {
        let mut next = u64::from(first_block);
        let mut at = 0;
        for chunk in chunks_with_data(extents, bits) {
            self.holes(chunk - at)?;
            self.out.put(&u32::try_from(next).unwrap_or(HOLE).to_le_bytes())?;
            next += chunk_blocks(size, bits, chunk);
            at = chunk + 1;
        }
        self.holes(size.div_ceil(BLOCK << bits) - at)
    }

    fn holes(&mut self, count: u64) -> io::Result<()> {
        (0..count).try_for_each(|_| self.out.put(&HOLE.to_le_bytes()))
    }

    /// The node's data blocks.
    fn blocks(&mut self, place: &Placed) -> io::Result<()> {
        self.out.pad_to(u64::from(place.block) * BLOCK)?;
        match (&self.tree.node(place.node).kind, place.layout) {
            (Kind::File { size, content: Content::Sparse(extents) }, Layout::Chunked { bits }) => {
                for chunk in chunks_with_data(extents, bits) {
                    let start = chunk * (BLOCK << bits);
                    self.sparse(extents, start, (*size).min(start + (BLOCK << bits)))?;
                    self.out.pad_to(self.out.at.next_multiple_of(BLOCK))?;
                    self.report();
                }
                Ok(())
            }
            (_, Layout::Inline) => self.data(place, 0, place.size - place.tail_len()),
            _ => self.data(place, 0, place.size),
        }
    }

    /// Bytes `start..end` of a node's data.
    fn data(&mut self, place: &Placed, start: u64, end: u64) -> io::Result<()> {
        match &self.tree.node(place.node).kind {
            Kind::Directory(_) => {
                let names = dirent::names(self.tree, place.node, place.parent);
                let bytes = dirent::encode(&names, self.tree, |node| self.plan.nid(node));
                self.slice(&bytes, start, end)
            }
            Kind::Symlink(target) => self.slice(target, start, end),
            Kind::File { content: Content::Dense(at), .. } => self.out.copy(self.spool, at + start, end - start),
            Kind::File { content: Content::Sparse(extents), .. } => self.sparse(extents, start, end),
            Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo | Kind::Socket => Ok(()),
        }
    }

    fn slice(&mut self, bytes: &[u8], start: u64, end: u64) -> io::Result<()> {
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let bytes = range.and_then(|(start, end)| bytes.get(start..end)).ok_or(io::ErrorKind::InvalidInput)?;
        self.out.put(bytes)
    }

    /// Bytes `start..end` of a sparse file, holes as zeros.
    fn sparse(&mut self, extents: &[Extent], start: u64, end: u64) -> io::Result<()> {
        let base = self.out.at;
        let first = extents.partition_point(|extent| extent.offset + extent.len <= start);
        for extent in extents.iter().skip(first).take_while(|extent| extent.offset < end) {
            let from = extent.offset.max(start);
            let to = (extent.offset + extent.len).min(end);
            self.out.pad_to(base + (from - start))?;
            self.out.copy(self.spool, extent.spool + (from - extent.offset), to - from)?;
        }
        self.out.pad_to(base + (end - start))
    }
}

/// The image file, written front to back; keeps the first block for its checksum.
struct Output<'a> {
    file: BufWriter<&'a File>,
    at: u64,
    first_block: [u8; BLOCK_LEN],
    copy: Vec<u8>,
}

impl<'a> Output<'a> {
    fn new(file: &'a File) -> Self {
        Self { file: BufWriter::with_capacity(1 << 20, file), at: 0, first_block: ZEROS, copy: Vec::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(place) = usize::try_from(self.at).ok().and_then(|at| self.first_block.get_mut(at..)) {
            place.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        }
        self.file.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        while self.at < offset {
            let len = usize::try_from(offset - self.at).unwrap_or(BLOCK_LEN).min(BLOCK_LEN);
            self.put(ZEROS.get(..len).unwrap_or(&ZEROS))?;
        }
        debug_assert_eq!(self.at, offset, "the plan leaves no overlap");
        Ok(())
    }

    fn copy(&mut self, spool: &Spool, from: u64, len: u64) -> io::Result<()> {
        if len >= COPY_IN_KERNEL && self.at >= BLOCK {
            self.file.flush()?;
            let mut source = spool.file();
            source.seek(SeekFrom::Start(from))?;
            // The standard library lets the kernel copy between two files.
            let mut sink: &File = self.file.get_ref();
            let copied = io::copy(&mut source.take(len), &mut sink)?;
            self.at += copied;
            return if copied == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(COPY_IN_KERNEL);
            let mut buffer = std::mem::take(&mut self.copy);
            buffer.resize(usize::try_from(piece).unwrap_or_default(), 0);
            let result = spool.read_exact_at(&mut buffer, from + done).and_then(|()| self.put(&buffer));
            self.copy = buffer;
            result?;
            done += piece;
        }
        Ok(())
    }

    /// Writes out what is buffered; gives the first block.
    fn flush(&mut self) -> io::Result<[u8; BLOCK_LEN]> {
        self.file.flush()?;
        Ok(self.first_block)
    }
}
