//! Collects every ended child of PID 1: the processes that the agent has made, and orphans.
//!
//! One place calls waitid(2), so no status is taken by anybody else. A child that is not known while the zygote is
//! making one may be that one, so it stays a zombie (and its id taken) until the zygote's answer has named it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::{Context, Result};
use crate::sys::wait_child;

/// The table of our children.
#[derive(Debug, Default)]
pub struct Reaper {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    owned: HashMap<i32, oneshot::Sender<u8>>,
    unknown_expected: bool,
}

impl Reaper {
    /// An empty table.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Collects for ever. Must be called within the runtime, before the first process is made.
    pub fn start(self: &Arc<Self>) -> Result<()> {
        let mut ended: Signal = signal(SignalKind::child()).on("sigaction", "SIGCHLD")?;
        let reaper = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                reaper.collect();
                if ended.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Tells the exit code of the child `pid`, which must not have been collected: one of the agent's own making.
    pub fn register(&self, pid: i32) -> oneshot::Receiver<u8> {
        let (exit, exited) = oneshot::channel();
        self.table().owned.insert(pid, exit);
        self.collect();
        exited
    }

    /// Says that a child is being made whose id is not known yet. One at a time.
    pub fn expect_unknown(&self) -> Unregistered<'_> {
        self.table().unknown_expected = true;
        Unregistered { reaper: self }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self) {
        loop {
            let mut table = self.table();
            let ended = match wait_child(None, true) {
                Ok(Some(ended)) => ended,
                Ok(None) => return,
                Err(errno) => {
                    crate::error!("waitid: {errno}");
                    return;
                }
            };
            let owner = table.owned.remove(&ended.pid);
            if owner.is_none() && table.unknown_expected {
                return;
            }
            drop(table);
            let _ = wait_child(Some(ended.pid), false);
            if let Some(owner) = owner {
                let _ = owner.send(ended.code);
            }
        }
    }
}

/// A child whose id is not known yet.
#[derive(Debug)]
pub struct Unregistered<'a> {
    reaper: &'a Reaper,
}

impl Unregistered<'_> {
    /// It is `pid`.
    #[must_use]
    pub fn register(self, pid: i32) -> oneshot::Receiver<u8> {
        self.reaper.register(pid)
    }
}

impl Drop for Unregistered<'_> {
    fn drop(&mut self) {
        self.reaper.table().unknown_expected = false;
        self.reaper.collect();
    }
}
