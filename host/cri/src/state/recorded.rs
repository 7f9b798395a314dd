//! A record in memory that is always what the disk has.

use std::io;

use serde::Serialize;
use tokio::sync::watch;

use super::disk::Disk;

/// The record of one object.
#[derive(Debug)]
pub struct Recorded<R> {
    id: String,
    record: watch::Sender<R>,
    disk: Disk,
}

impl<R: Clone + PartialEq + Serialize> Recorded<R> {
    /// The record of the object `id`, which is on `disk`.
    #[must_use]
    pub fn new(id: &str, record: R, disk: &Disk) -> Self {
        Self { id: id.to_owned(), record: watch::Sender::new(record), disk: disk.clone() }
    }

    #[must_use]
    pub fn get(&self) -> R {
        self.record.borrow().clone()
    }

    /// A look at the record; `look` must be short.
    pub fn with<T>(&self, look: impl FnOnce(&R) -> T) -> T {
        look(&self.record.borrow())
    }

    /// Changes the record, on disk first. Nothing is written when `change` changes nothing.
    ///
    /// # Errors
    ///
    /// When the disk refuses; the record is then as it was.
    pub fn update(&self, change: impl FnOnce(&mut R)) -> io::Result<()> {
        let mut result = Ok(());
        self.record.send_if_modified(|record| {
            let mut new = record.clone();
            change(&mut new);
            if new == *record {
                return false;
            }
            result = self.disk.update(&self.id, &new);
            if result.is_ok() {
                *record = new;
            }
            result.is_ok()
        });
        result
    }

    /// Waits until the record is so.
    pub async fn wait_for(&self, so: impl FnMut(&R) -> bool) {
        // The sender lives in `self`.
        let _ = self.record.subscribe().wait_for(so).await;
    }
}
