//! What the server shows: trees and single files, each under a name of its own.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, fcntl_getfl};
use rustix::io::Errno;

use crate::host::{self, Stat};
use crate::name::Name;

/// Most exports at a time.
pub(crate) const MAX: usize = 1024;

/// Why something cannot be exported, or an export cannot be taken back.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0:?} cannot name an export: up to 255 bytes without slash or NUL, neither `.` nor `..`")]
    Name(String),
    #[error("there is an export {0:?} already: choose another name, or take that one back first")]
    Exists(String),
    #[error("there is no export {0:?}")]
    Unknown(String),
    #[error("export {0:?} would be one more than {MAX}: take another one back first")]
    TooMany(String),
    #[error("export {0:?} is neither a directory nor a regular file")]
    Kind(String),
    #[error("the descriptor of export {0:?} was opened for more than its path: open it with O_PATH")]
    Access(String),
    #[error("cannot look at export {name:?}: {source}")]
    Look { name: String, source: Errno },
}

#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) id: u32,
    pub(crate) name: CString,
    pub(crate) read_only: bool,
    pub(crate) root: Arc<OwnedFd>,
    pub(crate) kind: FileType,
}

/// The exports by their ids, which are never used twice.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    next: u32,
    by_id: BTreeMap<u32, Arc<Export>>,
}

impl Exports {
    pub(crate) fn add(&mut self, name: &str, root: OwnedFd, read_only: bool) -> Result<(), ExportError> {
        let bad_name = || ExportError::Name(name.to_owned());
        let text = CString::new(name).map_err(|_| bad_name())?;
        Name::new(&text).map_err(|_| bad_name())?;
        if self.find(name).is_some() {
            return Err(ExportError::Exists(name.to_owned()));
        }
        let too_many = || ExportError::TooMany(name.to_owned());
        if self.by_id.len() >= MAX {
            return Err(too_many());
        }
        let look = |source| ExportError::Look { name: name.to_owned(), source };
        // A second wall: by itself such a descriptor can neither read nor write.
        if !fcntl_getfl(&root).map_err(look)?.contains(OFlags::PATH) {
            return Err(ExportError::Access(name.to_owned()));
        }
        let kind = host::stat(&root).as_ref().map(Stat::kind).map_err(|source| look(*source))?;
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            return Err(ExportError::Kind(name.to_owned()));
        }
        let id = self.next;
        self.next = id.checked_add(1).ok_or_else(too_many)?;
        self.by_id.insert(id, Arc::new(Export { id, name: text, read_only, root: Arc::new(root), kind }));
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &str) -> Result<u32, ExportError> {
        let id = self.find(name).map(|export| export.id).ok_or_else(|| ExportError::Unknown(name.to_owned()))?;
        self.by_id.remove(&id);
        Ok(id)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Export>> {
        self.by_name(name.as_bytes())
    }

    pub(crate) fn by_name(&self, name: &[u8]) -> Option<&Arc<Export>> {
        self.by_id.values().find(|export| export.name.as_bytes() == name)
    }

    /// Those with ids from `first` on, in order.
    pub(crate) fn from(&self, first: u32) -> impl Iterator<Item = &Arc<Export>> {
        self.by_id.range(first..).map(|(_, export)| export)
    }
}
