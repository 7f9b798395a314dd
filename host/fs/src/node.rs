//! Nodes: the objects that the client knows, each held by an `O_PATH` descriptor.
//!
//! The client counts its lookups and gives them back with FORGET. An object that is held cannot lose its inode number
//! to another one, so (mount, device, inode) names it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::export::Export;
use crate::host::{Result, Stat};
use crate::wire::ROOT;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The same object in two exports is two nodes: one of them may be read-only.
    export: u32,
    /// And so it is in two mounts.
    mount: u64,
    device: (u32, u32),
    inode: u64,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) export: Arc<Export>,
    /// Of what kind an object is never changes.
    pub(crate) kind: FileType,
    fd: Arc<OwnedFd>,
    key: Key,
}

impl Node {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Device and inode number on the host.
    pub(crate) fn device(&self) -> (u32, u32) {
        self.key.device
    }

    pub(crate) fn inode(&self) -> u64 {
        self.key.inode
    }

    /// EROFS in a read-only export.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.export.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct Held {
    node: Arc<Node>,
    lookups: u64,
}

/// All nodes but the synthetic root.
#[derive(Debug)]
pub(crate) struct Nodes {
    limit: usize,
    next: u64,
    by_id: HashMap<u64, Held>,
    by_key: HashMap<Key, u64>,
}

impl Nodes {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, next: ROOT, by_id: HashMap::new(), by_key: HashMap::new() }
    }

    /// An id that was not given out, or was forgotten, or belonged to an export that is gone, is ESTALE: the client
    /// looks the name up again.
    pub(crate) fn get(&self, id: u64) -> Result<Arc<Node>> {
        self.by_id.get(&id).map(|held| Arc::clone(&held.node)).ok_or(Errno::STALE)
    }

    /// Counts one lookup of an object, which becomes a node if it is none yet.
    pub(crate) fn enter(&mut self, export: &Arc<Export>, fd: Arc<OwnedFd>, stat: &Stat) -> Result<Arc<Node>> {
        let key = Key { export: export.id, mount: stat.mount, device: stat.device, inode: stat.inode };
        if let Some(held) = self.by_key.get(&key).and_then(|id| self.by_id.get_mut(id)) {
            held.lookups = held.lookups.saturating_add(1);
            return Ok(Arc::clone(&held.node));
        }
        if self.by_id.len() >= self.limit {
            return Err(Errno::NFILE);
        }
        let id = self.next.checked_add(1).ok_or(Errno::NFILE)?;
        self.next = id;
        let node = Arc::new(Node { id, export: Arc::clone(export), kind: stat.kind(), fd, key });
        self.by_id.insert(id, Held { node: Arc::clone(&node), lookups: 1 });
        self.by_key.insert(key, id);
        Ok(node)
    }

    /// ENFILE when there is no room for one more: asked before an object is made, so that none is made in vain.
    pub(crate) fn check_room(&self) -> Result<()> {
        if self.by_id.len() >= self.limit { Err(Errno::NFILE) } else { Ok(()) }
    }

    /// Whether so many are held that a listing should not add to them.
    pub(crate) fn is_half_full(&self) -> bool {
        self.by_id.len() >= self.limit / 2
    }

    /// Takes lookups back; ids that are unknown are none of ours any more.
    pub(crate) fn forget(&mut self, id: u64, lookups: u64) {
        let Some(held) = self.by_id.get_mut(&id) else { return };
        held.lookups = held.lookups.saturating_sub(lookups);
        if held.lookups == 0 {
            let key = held.node.key;
            self.by_id.remove(&id);
            self.by_key.remove(&key);
        }
    }

    pub(crate) fn remove_export(&mut self, export: u32) {
        self.by_id.retain(|_, held| held.node.export.id != export);
        self.by_key.retain(|key, _| key.export != export);
    }

    /// Ids go on where they were: an old one stays unknown.
    pub(crate) fn clear(&mut self) {
        self.by_id = HashMap::new();
        self.by_key = HashMap::new();
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}
