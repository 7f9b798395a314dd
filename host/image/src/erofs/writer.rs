//! Streams a planned image out, front to back.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::inode::{self, Fields, Layout};
use super::plan::{Placed, Plan};
use super::{BLOCK, BLOCK_LEN, Options, WriteError, chunk, devices, dirent, superblock, xattr};
use crate::tree::{Content, Extent, Kind, Spool, Tree};

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
    writer.out.put(&devices::encode(plan.devices(), plan.blocks()))?;
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
            (Kind::File { size, content: Content::Sparse { runs, .. } }, Layout::Chunked { bits }) => {
                self.chunk_map(runs, *size, bits, place.block)
            }
            (_, Layout::Inline) => self.data(place, place.size - place.tail_len(), place.size),
            _ => Ok(()),
        }
    }

    fn chunk_map(&mut self, runs: &[Extent], size: u64, bits: u8, first_block: u32) -> io::Result<()> {
        let mut next = u64::from(first_block);
        let mut at = 0;
        for number in chunk::with_data(runs, bits) {
            self.holes(number - at)?;
            self.out.put(&u32::try_from(next).unwrap_or(HOLE).to_le_bytes())?;
            next += chunk::blocks(size, bits, number);
            at = number + 1;
        }
        self.holes(size.div_ceil(BLOCK << bits) - at)
    }

    fn holes(&mut self, count: u64) -> io::Result<()> {
        (0..count).try_for_each(|_| self.out.put(&HOLE.to_le_bytes()))
    }

    /// The node's blocks: a directory's, or a long link's.
    fn blocks(&mut self, place: &Placed) -> io::Result<()> {
        self.out.pad_to(u64::from(place.block) * BLOCK)?;
        self.data(place, 0, place.size - place.tail_len())
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
            Kind::File { content: Content::Dense { tail: Some(at), .. }, .. } => {
                self.out.copy(self.spool, *at, end - start)
            }
            Kind::File { .. } => Ok(()),
            Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo | Kind::Socket => Ok(()),
        }
    }

    fn slice(&mut self, bytes: &[u8], start: u64, end: u64) -> io::Result<()> {
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let bytes = range.and_then(|(start, end)| bytes.get(start..end)).ok_or(io::ErrorKind::InvalidInput)?;
        self.out.put(bytes)
    }
}

/// The image file, written front to back; keeps the first block for its checksum.
struct Output<'a> {
    file: BufWriter<&'a File>,
    at: u64,
    first_block: [u8; BLOCK_LEN],
}

impl<'a> Output<'a> {
    fn new(file: &'a File) -> Self {
        Self { file: BufWriter::with_capacity(1 << 20, file), at: 0, first_block: ZEROS }
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

    /// A tail: less than a block.
    fn copy(&mut self, spool: &Spool, from: u64, len: u64) -> io::Result<()> {
        let mut tail = [0; BLOCK_LEN];
        let bytes = usize::try_from(len).ok().and_then(|len| tail.get_mut(..len)).ok_or(io::ErrorKind::InvalidInput)?;
        spool.read_exact_at(bytes, from)?;
        self.put(bytes)
    }

    /// Writes out what is buffered; gives the first block.
    fn flush(&mut self) -> io::Result<[u8; BLOCK_LEN]> {
        self.file.flush()?;
        Ok(self.first_block)
    }
}
