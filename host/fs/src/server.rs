//! One file system: its exports, what the client holds of them, and the way of a request to its answer.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::export::{ExportError, Exports};
use crate::handle::{Handle, Handles};
use crate::host::{Descriptors, Result, Stat};
use crate::io::{Sink, Source};
use crate::node::{Node, Nodes};
use crate::numbers::Numbers;
use crate::operations;
use crate::wire::{Header, IN_HEADER, OUT_HEADER, ROOT, opcode};

/// Most bytes of one READ or WRITE: 256 pages.
pub const MAX_WRITE: u32 = 1 << 20;
/// Longest request without the data of a WRITE: an extended attribute of 64 KiB is the largest there is.
const MAX_REQUEST: usize = 128 << 10;

/// How much a client may hold at a time. Each node and each handle is a descriptor of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Objects that the client knows: what its directory entry cache holds. One more is ENFILE.
    pub nodes: usize,
    /// Open files and directories. One more is ENFILE.
    pub handles: usize,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("the descriptor is not /proc/PID/fd of the process that is to serve: open that directory with O_PATH")]
    NotOwnDescriptors,
}

/// A file server. It can be shared between threads; only its tables are locked, and never during file system work.
#[derive(Debug)]
pub struct Server {
    pub(crate) descriptors: Descriptors,
    tables: Mutex<Tables>,
}

#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) exports: Exports,
    pub(crate) nodes: Nodes,
    pub(crate) handles: Handles,
    pub(crate) numbers: Numbers,
    /// INIT was answered.
    pub(crate) initialised: bool,
}

/// What a request is answered with.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nothing at all: the client expects no reply.
    Silence,
    Body(Vec<u8>),
    /// That many bytes, which stand behind the header already.
    Filled(usize),
}

/// A request whose fixed header has been read.
#[derive(Debug)]
pub(crate) struct Request<'b> {
    pub(crate) header: Header,
    /// Everything behind the header; of a WRITE only what precedes the data.
    pub(crate) body: &'b [u8],
}

impl Server {
    /// A server without exports. `descriptors` is `/proc/PID/fd` of this process: files are opened through it.
    pub fn new(descriptors: OwnedFd, limits: Limits) -> std::result::Result<Self, ServerError> {
        let descriptors = Descriptors::new(descriptors).ok_or(ServerError::NotOwnDescriptors)?;
        let tables = Tables {
            exports: Exports::default(),
            nodes: Nodes::new(limits.nodes),
            handles: Handles::new(limits.handles),
            numbers: Numbers::default(),
            initialised: false,
        };
        Ok(Self { descriptors, tables: Mutex::new(tables) })
    }

    /// Shows a directory, or a single file, as `name` in the root. `tree` is opened with `O_PATH`.
    ///
    /// A read-only export refuses every change, whatever the file's permissions and the guest's mount options.
    pub fn export(&self, name: &str, tree: OwnedFd, read_only: bool) -> std::result::Result<(), ExportError> {
        self.tables().exports.add(name, tree, read_only)
    }

    /// Takes an export back. What the client still holds of it is closed, and answers ESTALE or EBADF from now on.
    pub fn unexport(&self, name: &str) -> std::result::Result<(), ExportError> {
        let mut tables = self.tables();
        let export = tables.exports.remove(name)?;
        tables.nodes.remove_export(export);
        tables.handles.remove_export(export);
        Ok(())
    }

    /// Forgets the client: everything that it holds is closed. The exports stay.
    pub fn disconnect(&self) {
        let mut tables = self.tables();
        tables.nodes.clear();
        tables.handles.clear();
        tables.initialised = false;
    }

    /// How many nodes and handles the client holds.
    pub fn held(&self) -> (usize, usize) {
        let tables = self.tables();
        (tables.nodes.len(), tables.handles.len())
    }

    /// Does one request; returns how many bytes of the reply were put, 0 when there is none.
    pub fn serve(&self, source: &mut dyn Source, sink: &mut dyn Sink) -> usize {
        let mut bytes = [0; IN_HEADER];
        if !source.read(&mut bytes) {
            return 0;
        }
        let Ok(header) = Header::parse(&bytes) else { return 0 };
        match self.answer(header, source, sink) {
            Ok(Answer::Silence) => 0,
            Ok(Answer::Body(body)) => finish(sink, header.unique, &body),
            Ok(Answer::Filled(count)) => put_header(sink, header.unique, 0, count),
            Err(_) if matches!(header.opcode, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT) => 0,
            Err(errno) => put_header(sink, header.unique, errno.raw_os_error(), 0),
        }
    }

    fn answer(&self, header: Header, source: &mut dyn Source, sink: &mut dyn Sink) -> Result<Answer> {
        let length = source.remaining().checked_add(IN_HEADER).ok_or(Errno::INVAL)?;
        if usize::try_from(header.length) != Ok(length) {
            return Err(Errno::IO);
        }
        if !self.tables().initialised && header.opcode != opcode::INIT {
            return Err(Errno::IO);
        }
        let own = if header.opcode == opcode::WRITE { operations::WRITE_FIELDS } else { source.remaining() };
        if own > MAX_REQUEST {
            return Err(Errno::TOOBIG);
        }
        let mut body = vec![0; own];
        if !source.read(&mut body) {
            return Err(Errno::INVAL);
        }
        operations::perform(self, &Request { header, body: &body }, source, sink)
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        // No step that changes a table can panic half-way.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node that the client named. The synthetic root cannot be changed: EROFS.
    pub(crate) fn node(&self, id: u64) -> Result<Arc<Node>> {
        if id == ROOT {
            return Err(Errno::ROFS);
        }
        self.tables().nodes.get(id)
    }

    /// A node in which, or of which, something is to be changed.
    pub(crate) fn writable_node(&self, id: u64) -> Result<Arc<Node>> {
        let node = self.node(id)?;
        node.check_writable()?;
        Ok(node)
    }

    pub(crate) fn handle(&self, id: u64) -> Result<Arc<Handle>> {
        self.tables().handles.get(id)
    }

    /// The inode number to show for an object.
    pub(crate) fn number(&self, node: &Node, stat: &Stat) -> Result<u64> {
        self.tables().numbers.of(node.export.id, stat)
    }
}

/// Puts header and body; a reply that does not fit becomes EIO.
fn finish(sink: &mut dyn Sink, unique: u64, body: &[u8]) -> usize {
    if body.len().checked_add(OUT_HEADER).is_none_or(|total| total > sink.room()) {
        return put_header(sink, unique, Errno::IO.raw_os_error(), 0);
    }
    sink.put(OUT_HEADER, body);
    put_header(sink, unique, 0, body.len())
}

/// Puts a `fuse_out_header` in front of `body` bytes; returns the whole length.
fn put_header(sink: &mut dyn Sink, unique: u64, errno: i32, body: usize) -> usize {
    let total = body.saturating_add(OUT_HEADER);
    if sink.room() < OUT_HEADER {
        return 0;
    }
    let length = u32::try_from(total).unwrap_or(u32::MAX);
    let mut header = [0; OUT_HEADER];
    let fields = length.to_ne_bytes().into_iter().chain(errno.wrapping_neg().to_ne_bytes()).chain(unique.to_ne_bytes());
    for (to, from) in header.iter_mut().zip(fields) {
        *to = from;
    }
    sink.put(0, &header);
    total
}
