//! Names to nodes, and the attributes of nodes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fchmod, ftruncate, readlinkat};
use rustix::io::Errno;

use super::{VALID, VALID_IN_ROOT};
use crate::export::Export;
use crate::host::{self, Result, Stat, Time};
use crate::node::Node;
use crate::server::{Request, Server};
use crate::wire::{Body, Fields, ROOT};

// `valid` of SETATTR.
const MODE: u32 = 1 << 0;
const UID: u32 = 1 << 1;
const GID: u32 = 1 << 2;
const SIZE: u32 = 1 << 3;
const ATIME: u32 = 1 << 4;
const MTIME: u32 = 1 << 5;
const HANDLE: u32 = 1 << 6;
const ATIME_NOW: u32 = 1 << 7;
const MTIME_NOW: u32 = 1 << 8;
const KILL_SUIDGID: u32 = 1 << 11;

pub(super) const SET_UID: u32 = 0o4000;
pub(super) const SET_GID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

/// The synthetic root: a directory that nobody can change.
fn root_stat() -> Stat {
    let never = Time { seconds: 0, nanoseconds: 0 };
    Stat {
        device: (0, 0),
        mount: 0,
        inode: ROOT,
        mode: FileType::Directory.as_raw_mode() | 0o755,
        links: 2,
        uid: 0,
        gid: 0,
        device_number: (0, 0),
        size: 0,
        blocks: 0,
        block_size: 4096,
        accessed: never,
        modified: never,
        changed: never,
        born: None,
    }
}

/// Clears the bits that a writer without privilege may not keep (`setattr_should_drop_suidgid` in `fs/attr.c`): our own
/// privilege would keep them.
pub(super) fn drop_set_id(file: impl AsFd) -> Result<()> {
    let mode = host::stat(&file)?.mode;
    let mut dropped = mode & SET_UID;
    if mode & GROUP_EXECUTE != 0 {
        dropped |= mode & SET_GID;
    }
    if dropped == 0 {
        return Ok(());
    }
    fchmod(file, rustix::fs::Mode::from_raw_mode(mode & 0o7777 & !dropped))
}

impl Server {
    /// Counts a lookup of an object that was found, and describes it.
    pub(super) fn enter(&self, export: &Arc<Export>, fd: Arc<OwnedFd>) -> Result<(Arc<Node>, Stat, u64)> {
        let stat = host::stat(&fd)?;
        let mut tables = self.tables();
        let number = tables.numbers.of(export.id, &stat)?;
        let node = tables.nodes.enter(export, fd, &stat)?;
        Ok((node, stat, number))
    }

    /// The same as a `fuse_entry_out`.
    pub(super) fn entry(&self, export: &Arc<Export>, fd: Arc<OwnedFd>) -> Result<Body> {
        let (node, stat, number) = self.enter(export, fd)?;
        Ok(Body::new().entry(node.id, VALID, number, &stat))
    }

    pub(super) fn lookup(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let name = fields.name()?;
        fields.end()?;
        if request.header.node == ROOT {
            let found = self.tables().exports.by_name(name.as_c_str().to_bytes()).map(Arc::clone);
            let export = found.ok_or(Errno::NOENT)?;
            let (node, stat, number) = self.enter(&export, Arc::clone(&export.root))?;
            return Ok(Body::new().entry(node.id, VALID_IN_ROOT, number, &stat).into_bytes());
        }
        let directory = self.node(request.header.node)?;
        let found = host::lookup(directory.fd(), name)?;
        Ok(self.entry(&directory.export, Arc::new(found))?.into_bytes())
    }

    pub(super) fn getattr(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        if request.header.node == ROOT {
            return Ok(Body::new().u64(VALID).u64(0).attributes(ROOT, &root_stat()).into_bytes());
        }
        self.attributes(&*self.node(request.header.node)?)
    }

    /// `fuse_attr_out`.
    fn attributes(&self, node: &Node) -> Result<Vec<u8>> {
        let stat = host::stat(node.fd())?;
        let number = self.number(node, &stat)?;
        Ok(Body::new().u64(VALID).u64(0).attributes(number, &stat).into_bytes())
    }

    /// `fuse_statx_out`: the attributes, and the time of birth.
    pub(super) fn statx(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let (number, stat) = match request.header.node {
            ROOT => (ROOT, root_stat()),
            id => {
                let node = self.node(id)?;
                let stat = host::stat(node.fd())?;
                (self.number(&node, &stat)?, stat)
            }
        };
        Ok(Body::new().u64(VALID).u32(0).u32(0).zeroes(16).extended_attributes(number, &stat).into_bytes())
    }

    pub(super) fn setattr(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let valid = fields.u32()?;
        fields.skip(4)?;
        let (handle, size) = (fields.u64()?, fields.u64()?);
        fields.skip(8)?;
        let (accessed, modified) = (fields.u64()?, fields.u64()?);
        fields.skip(8)?;
        let (accessed_ns, modified_ns) = (fields.u32()?, fields.u32()?);
        fields.skip(4)?;
        let mode = fields.u32()?;
        fields.skip(4)?;
        let (uid, gid) = (fields.u32()?, fields.u32()?);

        let node = self.writable_node(request.header.node)?;
        // The owner first: changing it clears set-id bits, which a new mode may set again.
        if valid & (UID | GID) != 0 {
            let chosen = |bit: u32, id: u32| (valid & bit != 0).then_some(id);
            host::change_owner(node.fd(), chosen(UID, uid), chosen(GID, gid))?;
        }
        if valid & MODE != 0 {
            if node.kind == FileType::Symlink {
                return Err(Errno::OPNOTSUPP);
            }
            self.descriptors.change_mode(node.fd(), mode)?;
        }
        if valid & SIZE != 0 {
            let handle = (valid & HANDLE != 0).then_some(handle);
            self.truncate(&node, handle, size, valid & KILL_SUIDGID != 0)?;
        }
        if valid & (ATIME | MTIME | ATIME_NOW | MTIME_NOW) != 0 {
            let time = |set: u32, now: u32, seconds: u64, nanoseconds: u32| {
                let tv_nsec = match () {
                    () if valid & now != 0 => UTIME_NOW,
                    () if valid & set != 0 => i64::from(nanoseconds),
                    () => UTIME_OMIT,
                };
                Timespec { tv_sec: seconds.cast_signed(), tv_nsec }
            };
            let last_access = time(ATIME, ATIME_NOW, accessed, accessed_ns);
            let last_modification = time(MTIME, MTIME_NOW, modified, modified_ns);
            host::change_times(node.fd(), &Timestamps { last_access, last_modification })?;
        }
        self.attributes(&node)
    }

    fn truncate(&self, node: &Node, handle: Option<u64>, size: u64, drop_ids: bool) -> Result<()> {
        let change = |file: &OwnedFd| {
            ftruncate(file, size)?;
            if drop_ids { drop_set_id(file) } else { Ok(()) }
        };
        match handle {
            Some(handle) => {
                let handle = self.handle(handle)?;
                let (opened, file) = handle.file()?;
                if opened.id != node.id {
                    return Err(Errno::BADF);
                }
                change(file)
            }
            None => change(&self.open_file(node, OFlags::WRONLY)?),
        }
    }

    pub(super) fn readlink(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let node = self.node(request.header.node)?;
        if node.kind != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        Ok(readlinkat(node.fd(), c"", Vec::new())?.into_bytes())
    }
}
