//! Open files.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FallocateFlags, FileType, OFlags, SeekFrom, fallocate, fdatasync, fsync, seek};
use rustix::io::Errno;

use super::attributes::drop_set_id;
use crate::handle::Handle;
use crate::host::Result;
use crate::io::{Sink, Source};
use crate::node::Node;
use crate::server::{MAX_WRITE, Request, Server};
use crate::wire::{Body, Fields, OUT_HEADER};

/// `open_flags` of OPEN and CREATE: clear set-id bits when truncating.
const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `write_flags`: the page cache writes, not a caller; no handle's mode applies.
const WRITE_CACHE: u32 = 1 << 0;
const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `fsync_flags`: only the data.
const FSYNC_DATA: u32 = 1 << 0;
// `whence` of LSEEK; the client finds the others out for itself.
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// The part of a client's open flags that a file of the host is opened with.
///
/// O_APPEND is not: pages that the client's cache writes back have positions, which such a descriptor would ignore.
/// Writes of a caller who appends say so themselves.
pub(super) fn access_mode(flags: u32) -> Result<OFlags> {
    let flags = OFlags::from_bits_retain(flags);
    let access = flags & OFlags::RWMODE;
    if access == OFlags::RWMODE {
        return Err(Errno::INVAL);
    }
    Ok(access | (flags & (OFlags::SYNC | OFlags::DSYNC | OFlags::NOATIME)))
}

/// Appends a `fuse_open_out`.
pub(super) fn open_reply(body: Body, handle: u64) -> Body {
    body.u64(handle).u32(0).u32(0)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn count(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn advance(offset: u64, by: usize) -> Result<u64> {
    u64::try_from(by).ok().and_then(|by| offset.checked_add(by)).ok_or(Errno::FBIG)
}

impl Server {
    /// Opens a node's file, with the access times left alone where they are asked to be and we may.
    fn open_quietly(&self, node: &Node, flags: OFlags) -> Result<OwnedFd> {
        match self.open_file(node, flags) {
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => self.open_file(node, flags - OFlags::NOATIME),
            other => other,
        }
    }

    /// Opens a node's file. Only regular files: opening a device or a FIFO of the host acts on it or blocks.
    pub(super) fn open_file(&self, node: &Node, flags: OFlags) -> Result<OwnedFd> {
        match node.kind {
            FileType::RegularFile => self.descriptors.reopen(node.fd(), flags),
            FileType::Directory => Err(Errno::ISDIR),
            FileType::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NXIO),
        }
    }

    /// Opens a node's file with a client's flags.
    pub(super) fn open_as_asked(&self, node: &Node, flags: u32) -> Result<OwnedFd> {
        let access = access_mode(flags)?;
        let truncate = OFlags::from_bits_retain(flags) & OFlags::TRUNC;
        if access & OFlags::RWMODE != OFlags::RDONLY || !truncate.is_empty() {
            node.check_writable()?;
        }
        self.open_quietly(node, access | truncate)
    }

    pub(super) fn add_file(&self, node: &Arc<Node>, file: OwnedFd) -> Result<u64> {
        self.tables().handles.add(Handle::File { node: Arc::clone(node), file, appending: OnceLock::new() })
    }

    pub(super) fn open(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (flags, open_flags) = (fields.u32()?, fields.u32()?);
        let node = self.node(request.header.node)?;
        let file = self.open_as_asked(&node, flags)?;
        if open_flags & OPEN_KILL_SUIDGID != 0 && OFlags::from_bits_retain(flags).contains(OFlags::TRUNC) {
            node.check_writable()?;
            drop_set_id(&file)?;
        }
        let handle = self.add_file(&node, file)?;
        Ok(open_reply(Body::new(), handle).into_bytes())
    }

    /// Reads into the sink, behind the header; returns how much.
    pub(super) fn read(&self, request: &Request<'_>, sink: &mut dyn Sink) -> Result<usize> {
        let mut fields = Fields::new(request.body);
        let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let handle = self.handle(handle)?;
        let (_, file) = handle.file()?;
        let room = sink.room().checked_sub(OUT_HEADER).ok_or(Errno::INVAL)?;
        let wanted = count(size.min(MAX_WRITE)).min(room);
        let mut done = 0;
        while done < wanted {
            let at = OUT_HEADER.checked_add(done).ok_or(Errno::INVAL)?;
            match sink.fill(at, file.as_fd(), advance(offset, done)?, wanted - done) {
                Ok(0) => break,
                Ok(more) => done = done.saturating_add(more).min(wanted),
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(done)
    }

    pub(super) fn write(&self, request: &Request<'_>, source: &mut dyn Source) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (handle, offset, size, write_flags) = (fields.u64()?, fields.u64()?, fields.u32()?, fields.u32()?);
        fields.skip(8)?;
        let flags = OFlags::from_bits_retain(fields.u32()?);
        let handle = self.handle(handle)?;
        let (node, file) = handle.file()?;
        node.check_writable()?;
        let wanted = count(size);
        if size > MAX_WRITE || wanted > source.remaining() {
            return Err(Errno::INVAL);
        }
        if write_flags & WRITE_KILL_SUIDGID != 0 {
            drop_set_id(file)?;
        }
        let append = flags.contains(OFlags::APPEND) && write_flags & WRITE_CACHE == 0;
        let open = |node: &Node| self.descriptors.reopen(node.fd(), OFlags::WRONLY | OFlags::APPEND);
        let file = if append { handle.appending(open)? } else { file };
        let mut done = 0;
        while done < wanted {
            match source.write_to(file.as_fd(), advance(offset, done)?, wanted - done, append) {
                Ok(0) => break,
                Ok(more) => done = done.saturating_add(more).min(wanted),
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        written(done)
    }

    pub(super) fn release(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let handle = Fields::new(request.body).u64()?;
        self.tables().handles.remove(handle)?;
        Ok(Vec::new())
    }

    pub(super) fn fsync(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (handle, flags) = (fields.u64()?, fields.u32()?);
        let handle = self.handle(handle)?;
        let (_, file) = handle.file()?;
        if flags & FSYNC_DATA != 0 {
            fdatasync(file)?
        } else {
            fsync(file)?
        }
        Ok(Vec::new())
    }

    pub(super) fn fallocate(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (handle, offset, length, mode) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u32()?);
        let handle = self.handle(handle)?;
        let (node, file) = handle.file()?;
        node.check_writable()?;
        let mode = FallocateFlags::from_bits_retain(mode);
        let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(mode) {
            return Err(Errno::OPNOTSUPP);
        }
        drop_set_id_for(request, file)?;
        fallocate(file, mode, offset, length)?;
        Ok(Vec::new())
    }

    pub(super) fn lseek(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (handle, offset, whence) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let handle = self.handle(handle)?;
        let (_, file) = handle.file()?;
        let position = match whence {
            SEEK_DATA => SeekFrom::Data(offset),
            SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        Ok(Body::new().u64(seek(file, position)?).into_bytes())
    }

    pub(super) fn copy_file_range(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (from, mut from_offset) = (fields.u64()?, fields.u64()?);
        fields.skip(8)?;
        let (to, mut to_offset, length, flags) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
        if flags != 0 {
            return Err(Errno::INVAL);
        }
        let (from, to) = (self.handle(from)?, self.handle(to)?);
        let ((_, from), (node, to)) = (from.file()?, to.file()?);
        node.check_writable()?;
        drop_set_id_for(request, to)?;
        // One request at a time: a long copy would keep everything else waiting.
        let length = count(MAX_WRITE).saturating_mul(16).min(usize::try_from(length).unwrap_or(usize::MAX));
        let copied = rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), length)?;
        written(copied)
    }
}

/// Requests without a flag for it leave the clearing of set-id bits to us as well (HANDLE_KILLPRIV_V2): for everybody
/// but root, as no request tells capabilities; and for root, too, where requests tell no ids (ALLOW_IDMAP).
fn drop_set_id_for(request: &Request<'_>, file: &OwnedFd) -> Result<()> {
    if request.header.uid == 0 { Ok(()) } else { drop_set_id(file) }
}

/// `fuse_write_out`.
fn written(count: usize) -> Result<Vec<u8>> {
    let count = u32::try_from(count).map_err(|_| Errno::INVAL)?;
    Ok(Body::new().u32(count).u32(0).into_bytes())
}
