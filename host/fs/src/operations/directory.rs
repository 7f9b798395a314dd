//! Reading directories.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::fs::{FileType, OFlags, RawDir, SeekFrom, fdatasync, fsync, seek};
use rustix::io::Errno;

use crate::handle::{Handle, lock};
use crate::host::{self, Result};
use crate::name::Name;
use crate::node::Node;
use crate::operations::file::open_reply;
use crate::server::{MAX_WRITE, Request, Server};
use crate::wire::{Body, ENTRY, Fields, OUT_HEADER, ROOT, dirent_length};

/// What a listing tells of each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// READDIR.
    Names,
    /// READDIRPLUS: each entry counts as looked up.
    Entries,
}

impl Style {
    /// Length of an entry with such a name.
    fn length(self, name: usize) -> usize {
        match self {
            Self::Names => dirent_length(name),
            Self::Entries => dirent_length(name).saturating_add(ENTRY),
        }
    }
}

/// Buffer for the host's entries. It need not hold more than a reply does: what is read too much is read again.
const BUFFER_LEAST: usize = 1 << 10;
const BUFFER_MOST: usize = 32 << 10;

/// Cookies of `.` and `..` in the root; those of the exports follow, by their ids.
const ROOT_COOKIES: u64 = 2;

/// The `d_type` of an entry: the file type bits of a mode, shifted (`fs_umode_to_dtype` in `fs/fs_types.c`).
fn entry_type(kind: FileType) -> u32 {
    if kind == FileType::Unknown { 0 } else { kind.as_raw_mode() >> 12 }
}

impl Server {
    pub(super) fn opendir(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let handle = if request.header.node == ROOT {
            Handle::Root
        } else {
            let node = self.node(request.header.node)?;
            let stream = open_directory(&node)?;
            Handle::Directory { node, stream: Mutex::new(stream) }
        };
        let handle = self.tables().handles.add(handle)?;
        Ok(open_reply(Body::new(), handle).into_bytes())
    }

    pub(super) fn fsyncdir(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (handle, flags) = (fields.u64()?, fields.u32()?);
        match &*self.handle(handle)? {
            Handle::Directory { stream, .. } if flags & 1 != 0 => fdatasync(&*lock(stream))?,
            Handle::Directory { stream, .. } => fsync(&*lock(stream))?,
            Handle::Root => {}
            Handle::File { .. } => return Err(Errno::NOTDIR),
        }
        Ok(Vec::new())
    }

    pub(super) fn readdir(&self, request: &Request<'_>, room: usize, style: Style) -> Result<Vec<u8>> {
        let mut fields = Fields::new(request.body);
        let (handle, cookie, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let room = room.checked_sub(OUT_HEADER).ok_or(Errno::INVAL)?;
        let room = room.min(usize::try_from(size.min(MAX_WRITE)).unwrap_or(0));
        let listed = match &*self.handle(handle)? {
            Handle::Directory { node, stream } => self.list(node, &lock(stream), cookie, room, style),
            Handle::Root => self.list_exports(cookie, room, style),
            Handle::File { .. } => Err(Errno::NOTDIR),
        };
        listed.map(Body::into_bytes)
    }

    /// Entries from a cookie on. Cookies are the host's own 64-bit positions, which mean nothing to us.
    fn list(&self, node: &Arc<Node>, stream: &OwnedFd, cookie: u64, room: usize, style: Style) -> Result<Body> {
        seek(stream, SeekFrom::Start(cookie))?;
        let mut buffer = Vec::with_capacity(room.clamp(BUFFER_LEAST, BUFFER_MOST));
        let mut entries = RawDir::new(stream, buffer.spare_capacity_mut());
        let mut body = Body::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if style.length(name.count_bytes()) > room.saturating_sub(body.len()) {
                return full(body);
            }
            // The parent of an export's root is none of the client's business.
            let own = Name::new(name).is_err();
            let inode = if own { node.inode() } else { entry.ino() };
            let number = self.tables().numbers.number(node.export.id, node.device(), inode)?;
            if style == Style::Entries {
                let found = if own { None } else { self.list_entry(node, name) };
                body = match found {
                    Some(found) => body.bytes(&found.into_bytes()),
                    None => body.zeroes(ENTRY),
                };
            }
            body = body.dirent(number, entry.next_entry_cookie(), entry_type(entry.file_type()), name.to_bytes());
        }
        Ok(body)
    }

    /// The looked-up part of an entry. An entry without it is looked up by the client when needed: it may have gone
    /// meanwhile, or so many nodes are held that a mere listing should not add to them.
    fn list_entry(&self, node: &Arc<Node>, name: &std::ffi::CStr) -> Option<Body> {
        if self.tables().nodes.is_half_full() {
            return None;
        }
        let found = host::lookup(node.fd(), Name::new(name).ok()?).ok()?;
        self.entry(&node.export, Arc::new(found)).ok()
    }

    fn list_exports(&self, cookie: u64, room: usize, style: Style) -> Result<Body> {
        let mut body = Body::new();
        let plain = |body: Body| if style == Style::Entries { body.zeroes(ENTRY) } else { body };
        let fits = |body: &Body, name: &[u8]| style.length(name.len()) <= room.saturating_sub(body.len());
        for (position, name) in [(1, &b"."[..]), (2, b"..")] {
            if cookie < position {
                if !fits(&body, name) {
                    return full(body);
                }
                body = plain(body).dirent(ROOT, position, entry_type(FileType::Directory), name);
            }
        }
        let Ok(first) = u32::try_from(cookie.saturating_sub(ROOT_COOKIES)) else { return Ok(body) };
        let exports: Vec<_> = self.tables().exports.from(first).map(Arc::clone).collect();
        for export in exports {
            let name = export.name.as_bytes();
            if !fits(&body, name) {
                return full(body);
            }
            let stat = host::stat(&export.root)?;
            let number = self.tables().numbers.of(export.id, &stat)?;
            // The cookie of the next one: ids begin at 0.
            let next = u64::from(export.id).saturating_add(ROOT_COOKIES + 1);
            body = plain(body).dirent(number, next, entry_type(export.kind), name);
        }
        Ok(body)
    }
}

/// A reply without room for the next entry; one that has not even room for one would look like the end.
fn full(body: Body) -> Result<Body> {
    if body.len() == 0 { Err(Errno::INVAL) } else { Ok(body) }
}

fn open_directory(node: &Node) -> Result<OwnedFd> {
    if node.kind != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    host::open_beneath(node.fd(), c".", OFlags::RDONLY | OFlags::DIRECTORY, rustix::fs::Mode::empty())
}
