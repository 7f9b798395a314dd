//! `journal.json`: the one change that is being made to the store, where it takes more than one step. Whoever takes the
//! store's lock next finishes what a crash interrupted.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::names::Named;
use super::staging::sync_parent;
use crate::digest::Digest;

/// A change. Each is done again from the start as often as need be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// An image is put in its place and gets its names. Without the image there is nothing to do.
    Publish {
        #[serde(flatten)]
        named: Named,
        names: Vec<String>,
    },
    /// An image loses its names and goes.
    Remove { id: Digest },
    /// An image loses its names, and goes when nobody uses it any more.
    Retire { id: Digest },
}

/// The change that was begun, if any. A journal is written whole or not at all; one that cannot be read is none of ours.
pub(super) fn read(path: &Path) -> io::Result<Option<Change>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("it cannot be read: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Notes a change before its first step; `tmp` is on the same file system.
pub(super) fn begin(path: &Path, tmp: &Path, change: &Change) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(tmp)?;
    serde_json::to_writer(&mut file, change)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_parent(path)
}

/// Forgets it after its last step.
pub(super) fn end(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
