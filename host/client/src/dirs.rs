//! Where a pod's files are, derived from its namespace and id alone.

use std::env;
use std::path::{Path, PathBuf};

/// The two directories below which everything of Husk lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// Sockets and state of running pods, gone with a reboot. `HUSK_RUN`, default `/run/husk`.
    pub run: PathBuf,
    /// Images, scratch disks and volumes. `HUSK_ROOT`, default `/var/lib/husk`.
    pub root: PathBuf,
}

/// A namespace or id that cannot be a path component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {value:?} is not valid: use 1 to 76 characters of A-Z a-z 0-9 . _ -, beginning with a letter or a digit"
)]
pub struct InvalidId {
    pub what: &'static str,
    pub value: String,
}

/// Longest namespace or id, in bytes: containerd's own limit.
const MAX_ID: usize = 76;

impl Dirs {
    /// As the environment says.
    #[must_use]
    pub fn from_env() -> Self {
        let or = |name: &str, default: &str| {
            env::var_os(name).filter(|value| !value.is_empty()).map_or_else(|| default.into(), PathBuf::from)
        };
        Self { run: or("HUSK_RUN", "/run/husk"), root: or("HUSK_ROOT", "/var/lib/husk") }
    }

    /// The shim's own directory of a pod: sockets, console, log. Mode 0700.
    pub fn shim_state(&self, namespace: &str, pod: &str) -> Result<PathBuf, InvalidId> {
        Ok(self.run.join("shim").join(component("namespace", namespace)?).join(component("pod id", pod)?))
    }

    /// The socket of a pod's Task and Pod services.
    pub fn task_socket(&self, namespace: &str, pod: &str) -> Result<PathBuf, InvalidId> {
        Ok(self.shim_state(namespace, pod)?.join("task.sock"))
    }

    /// What of a pod must not live in memory: its scratch disk.
    pub fn pod_data(&self, namespace: &str, pod: &str) -> Result<PathBuf, InvalidId> {
        Ok(self.root.join("pods").join(component("namespace", namespace)?).join(component("pod id", pod)?))
    }

    /// The formatted, empty scratch disk of which pods get clones.
    #[must_use]
    pub fn scratch_template(&self) -> PathBuf {
        self.root.join("scratch")
    }
}

fn component<'a>(what: &'static str, value: &'a str) -> Result<&'a Path, InvalidId> {
    let valid = value.len() <= MAX_ID
        && value.starts_with(|first: char| first.is_ascii_alphanumeric())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if valid { Ok(Path::new(value)) } else { Err(InvalidId { what, value: value.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_the_directory() {
        let dirs = Dirs { run: "/run/husk".into(), root: "/var/lib/husk".into() };
        assert_eq!(dirs.task_socket("default", "web").unwrap(), Path::new("/run/husk/shim/default/web/task.sock"));
        for bad in ["", "..", "a/b", "-x", "/etc"] {
            assert!(dirs.shim_state("default", bad).is_err(), "{bad:?}");
            assert!(dirs.pod_data(bad, "web").is_err(), "{bad:?}");
        }
    }
}
