//! User namespaces: one for each set of maps that containers or mounts ask for, kept until the VM ends.
//!
//! A namespace is made by a process of its own, which is gone when its maps are written; what stays is the descriptor.
//! Containers of one set of maps share the namespace, so that one of them can look into the processes of another.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use husk_agent_api::v1::{IdMap, IdMaps};
use rustix::pipe::PipeFlags;
use tokio::sync::Mutex;

use crate::error::{Context, Error, Result};
use crate::launch::status::{Progress, StatusReceiver};
use crate::sys::send_signal;
use crate::zygote::client::{Client, Request};
use crate::zygote::message::{Job, Role};

/// The kernel's `UID_GID_MAP_MAX_EXTENTS`.
const MAX_ENTRIES: usize = 340;
/// The kernel takes a map in one write of less than a page.
const MAX_TEXT: usize = 4095;
/// Who owns what the namespace has no id for (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;

/// A user namespace and what its ids are.
#[derive(Debug)]
pub struct UserNamespace {
    /// Refers to it.
    pub fd: OwnedFd,
    maps: IdMaps,
}

impl UserNamespace {
    /// The guest's id of a user; `InvalidArgument` for one that the namespace does not have.
    pub fn uid(&self, id: u32) -> Result<u32> {
        outside(&self.maps.uids, id).ok_or_else(|| Error::invalid(format!("user {id} is not in the user namespace")))
    }

    /// The same of a group.
    pub fn gid(&self, id: u32) -> Result<u32> {
        outside(&self.maps.gids, id).ok_or_else(|| Error::invalid(format!("group {id} is not in the user namespace")))
    }

    /// What the namespace calls a user and a group of the guest.
    #[must_use]
    pub fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let inside = |maps: &[IdMap], id| find(maps, id, |map| map.host_id, |map| map.container_id).unwrap_or(NOBODY);
        (inside(&self.maps.uids, uid), inside(&self.maps.gids, gid))
    }
}

fn outside(maps: &[IdMap], id: u32) -> Option<u32> {
    find(maps, id, |map| map.container_id, |map| map.host_id)
}

fn find(maps: &[IdMap], id: u32, from: impl Fn(&IdMap) -> u32, to: impl Fn(&IdMap) -> u32) -> Option<u32> {
    maps.iter().find_map(|map| {
        let at = id.checked_sub(from(map))?;
        if at < map.size { to(map).checked_add(at) } else { None }
    })
}

/// Refuses maps that the kernel would.
pub fn check(field: &str, maps: &IdMaps) -> Result<()> {
    for (kind, list) in [("uids", &maps.uids), ("gids", &maps.gids)] {
        let bad = |why: &str| Err(Error::invalid(format!("{field}.{kind}: {why}")));
        if list.len() > MAX_ENTRIES || text(list).len() > MAX_TEXT {
            return bad("too many entries");
        }
        // The last id of all stands for no id.
        if list.iter().any(|map| map.size == 0 || map.container_id.checked_add(map.size).is_none()) {
            return bad("a range is empty or ends above 4294967294");
        }
        if list.iter().any(|map| map.host_id.checked_add(map.size).is_none()) {
            return bad("a range of the guest's ids ends above 4294967294");
        }
        if outside(list, 0).is_none() {
            return bad("there is no id 0");
        }
    }
    Ok(())
}

/// The form of `/proc/PID/uid_map`.
fn text(maps: &[IdMap]) -> String {
    maps.iter().fold(String::new(), |mut text, map| {
        let _ = writeln!(text, "{} {} {}", map.container_id, map.host_id, map.size);
        text
    })
}

/// All that have been made.
#[derive(Debug, Default)]
pub struct UserNamespaces {
    /// Few: a pod has one, or two if a mount has other maps.
    made: Mutex<Vec<Arc<UserNamespace>>>,
}

impl UserNamespaces {
    /// The namespace with these maps, which have been checked.
    pub async fn of(&self, zygote: &Client, maps: &IdMaps) -> Result<Arc<UserNamespace>> {
        let mut made = self.made.lock().await;
        if let Some(namespace) = made.iter().find(|namespace| namespace.maps == *maps) {
            return Ok(Arc::clone(namespace));
        }
        let fd = make(zygote, maps).await.map_err(|error| error.during("user namespace"))?;
        let namespace = Arc::new(UserNamespace { fd, maps: maps.clone() });
        made.push(Arc::clone(&namespace));
        Ok(namespace)
    }
}

async fn make(zygote: &Client, maps: &IdMaps) -> Result<OwnedFd> {
    let (status, theirs) = StatusReceiver::pair()?;
    let (held_back, start) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).on("pipe2", "start")?;
    let mut request = Request::new(Job::UserNamespace);
    request.give(Role::Status, theirs);
    request.give(Role::Start, held_back);
    let holder = zygote.spawn(request).await?;
    match status.next().await? {
        Progress::Ready => {}
        Progress::Failed(error) => return Err(error),
        Progress::Closed | Progress::Console(_) => return Err(Error::Internal("its holder has ended".to_owned())),
    }
    for (file, list) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
        let path = format!("/proc/{}/{file}", holder.pid);
        // EINVAL: ranges overlap.
        std::fs::write(&path, text(list)).on("write", &path)?;
    }
    let path = format!("/proc/{}/ns/user", holder.pid);
    let fd = OwnedFd::from(std::fs::File::open(&path).on("open", &path)?);
    // The number was that process's all the time if it still is.
    send_signal(holder.pidfd.as_fd(), 0).on("pidfd_send_signal", holder.pid)?;
    drop(start);
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(list: &[(u32, u32, u32)]) -> IdMaps {
        let map = |&(container_id, host_id, size): &(u32, u32, u32)| IdMap { container_id, host_id, size };
        let list: Vec<_> = list.iter().map(map).collect();
        IdMaps { uids: list.clone(), gids: list }
    }

    #[test]
    fn ids_are_mapped_both_ways() {
        let maps = maps(&[(0, 100_000, 1000), (5000, 7, 1)]);
        let fd = std::fs::File::open("/proc/self/ns/user").unwrap().into();
        let namespace = UserNamespace { fd, maps };
        assert_eq!((namespace.uid(0).unwrap(), namespace.uid(999).unwrap()), (100_000, 100_999));
        assert_eq!((namespace.gid(5000).unwrap(), namespace.inside(7, 100_001)), (7, (5000, 1)));
        assert!(namespace.uid(1000).is_err());
        assert_eq!(namespace.inside(0, 0), (NOBODY, NOBODY));
    }

    #[test]
    fn impossible_maps_are_refused() {
        check("m", &maps(&[(0, 65_536, 65_536)])).unwrap();
        check("m", &maps(&[(0, 0, u32::MAX)])).unwrap();
        let many: Vec<_> = (0..400).map(|n| (n, n, 1)).collect();
        for bad in [&[][..], &[(1, 1, 1)], &[(0, 0, 0)], &[(0, 1, u32::MAX)], &[(0, 0, 1), (1, u32::MAX, 1)], &many] {
            assert!(check("m", &maps(bad)).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_maps_are_used_without_panic(list: Vec<(u32, u32, u32)>, id: u32) {
            let maps = maps(&list);
            let _ = (check("m", &maps), outside(&maps.uids, id));
        }
    }
}
