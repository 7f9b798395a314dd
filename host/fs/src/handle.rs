//! Handles: files and directories that the client has opened.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;

use crate::host::Result;
use crate::node::Node;

#[derive(Debug)]
pub(crate) enum Handle {
    File {
        node: Arc<Node>,
        file: OwnedFd,
        /// The same, opened to append; see [`Handle::appending`].
        appending: OnceLock<OwnedFd>,
    },
    Directory {
        node: Arc<Node>,
        /// Reading moves the descriptor's position, so one at a time.
        stream: Mutex<OwnedFd>,
    },
    /// The synthetic root.
    Root,
}

impl Handle {
    fn node(&self) -> Option<&Arc<Node>> {
        match self {
            Self::File { node, .. } | Self::Directory { node, .. } => Some(node),
            Self::Root => None,
        }
    }

    /// The descriptor for writes to the end of the file, opened by `open` for the first of them. One that is opened with
    /// `O_APPEND` finds the end on every file system; overlayfs ignores `RWF_APPEND` (`ovl_write_iter` in
    /// `fs/overlayfs/file.c`, Linux 6.1), and the client's own idea of the end may be old.
    pub(crate) fn appending(&self, open: impl FnOnce(&Node) -> Result<OwnedFd>) -> Result<&OwnedFd> {
        let Self::File { node, appending, .. } = self else { return Err(Errno::BADF) };
        match appending.get() {
            Some(file) => Ok(file),
            None => {
                let file = open(node)?;
                Ok(appending.get_or_init(|| file))
            }
        }
    }

    /// The opened file and its node; EBADF for a directory.
    pub(crate) fn file(&self) -> Result<(&Arc<Node>, &OwnedFd)> {
        match self {
            Self::File { node, file, .. } => Ok((node, file)),
            Self::Directory { .. } | Self::Root => Err(Errno::BADF),
        }
    }
}

/// A panic while a stream was read leaves nothing but its position behind, which every reader sets anew.
pub(crate) fn lock(stream: &Mutex<OwnedFd>) -> MutexGuard<'_, OwnedFd> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(crate) struct Handles {
    limit: usize,
    next: u64,
    by_id: HashMap<u64, Arc<Handle>>,
}

impl Handles {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, next: 0, by_id: HashMap::new() }
    }

    pub(crate) fn get(&self, id: u64) -> Result<Arc<Handle>> {
        self.by_id.get(&id).map(Arc::clone).ok_or(Errno::BADF)
    }

    pub(crate) fn add(&mut self, handle: Handle) -> Result<u64> {
        if self.by_id.len() >= self.limit {
            return Err(Errno::NFILE);
        }
        let id = self.next.checked_add(1).ok_or(Errno::NFILE)?;
        self.next = id;
        self.by_id.insert(id, Arc::new(handle));
        Ok(id)
    }

    pub(crate) fn remove(&mut self, id: u64) -> Result<()> {
        self.by_id.remove(&id).map(drop).ok_or(Errno::BADF)
    }

    pub(crate) fn remove_export(&mut self, export: u32) {
        self.by_id.retain(|_, handle| handle.node().is_none_or(|node| node.export.id != export));
    }

    pub(crate) fn clear(&mut self) {
        self.by_id = HashMap::new();
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}
