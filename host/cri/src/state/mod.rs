//! What huskd knows of pods and containers: in memory, where every List and Status is answered, and on disk, from where
//! a restarted huskd takes it up again.
//!
//! What a request asked for (`PodSandboxConfig`, `ContainerConfig`) never changes and is written once; what becomes of it
//! is a small record that is replaced as a whole at each step. What the containers do meanwhile is known by the pods'
//! shims, which `runtime::recover` asks.

mod container;
mod disk;
mod names;
mod record;
mod recorded;
mod sandbox;
mod table;

pub use container::Container;
pub use disk::Disk;
pub use names::{Names, Reserved};
pub use record::{ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord, UserRecord};
pub use recorded::Recorded;
pub use sandbox::Sandbox;
pub use table::Table;

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the epoch, as CRI counts time.
#[must_use]
pub fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Now, in nanoseconds since the epoch.
#[must_use]
pub fn now() -> i64 {
    nanoseconds(SystemTime::now())
}
