//! The pod's cgroup on the host: the VMM is born in it, so that all of the VM is charged to the pod.
//!
//! cgroup v2 only. Controllers are enabled towards it where the node lets us; without them the pod runs all the same,
//! only unaccounted.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const MOUNT: &str = "/sys/fs/cgroup";
/// Parent of pods whose spec names no cgroup.
const PARENT: &str = "husk";
const CONTROLLERS: [&str; 4] = ["+cpu", "+memory", "+pids", "+io"];
/// How often an emptying cgroup is looked at, when its notification does not come.
const POLL: Duration = Duration::from_millis(20);

/// Where the VMM process is to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In a cgroup of its own below the cgroup v2 mount, e.g. `husk/default-web`; made for the pod and removed with it.
    Cgroup(PathBuf),
    /// Where the caller lives, who accounts for the pod.
    Inherit,
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("linux.cgroupsPath = {path} is not supported: {why}")]
    Path { path: String, why: &'static str },
    #[error(
        "cgroup v2 is not mounted at {MOUNT}; mount it (`mount -t cgroup2 none {MOUNT}`) or boot the node with \
         systemd.unified_cgroup_hierarchy=1"
    )]
    NotMounted,
    #[error("cannot {action} the pod's cgroup {}: {source}; run as root on a node whose cgroup v2 is writable", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("processes of the cgroup {} did not end within {after:?} of SIGKILL", path.display())]
    StillPopulated { path: PathBuf, after: Duration },
}

impl Placement {
    /// `linux.cgroupsPath` of the sandbox's spec, else `/husk/<namespace>-<id>`.
    pub fn of_pod(spec: &Spec, namespace: &str, id: &str) -> Result<Self, CgroupError> {
        match spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref()) {
            Some(path) if !path.as_os_str().is_empty() => Self::from_spec(path),
            _ => Ok(Self::derived(namespace, id)),
        }
    }

    pub(crate) fn derived(namespace: &str, id: &str) -> Self {
        Self::Cgroup(Path::new(PARENT).join(format!("{namespace}-{id}")))
    }

    fn from_spec(path: &Path) -> Result<Self, CgroupError> {
        let refuse = |why| Err(CgroupError::Path { path: path.display().to_string(), why });
        let text = path.to_string_lossy();
        let expanded = match text.split(':').collect::<Vec<_>>().as_slice() {
            [_] => path.to_owned(),
            [slice, prefix, name] => match from_systemd(slice, prefix, name) {
                Some(path) => path,
                None => return refuse("in slice:prefix:name the slice looks like a-b.slice and the name has no slash"),
            },
            _ => return refuse("it is a path or slice:prefix:name"),
        };
        let mut relative = PathBuf::new();
        for component in expanded.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => relative.push(name),
                Component::ParentDir | Component::Prefix(_) => return refuse("a cgroup's path has no \"..\""),
            }
        }
        if relative.as_os_str().is_empty() {
            return refuse("the root cgroup cannot be a pod's");
        }
        Ok(Self::Cgroup(relative))
    }
}

/// Where systemd has the unit `prefix-name.scope` of a slice: `a-b.slice` lies in `a.slice` (systemd.slice(5)). Kubelet
/// names a pod's cgroup like this and makes the slice; the scope in it is made by us.
fn from_systemd(slice: &str, prefix: &str, name: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let parts = slice.strip_suffix(".slice")?;
    if parts != "-" {
        let mut so_far = String::new();
        for part in parts.split('-') {
            if part.is_empty() || part.contains('/') {
                return None;
            }
            if !so_far.is_empty() {
                so_far.push('-');
            }
            so_far.push_str(part);
            path.push(format!("{so_far}.slice"));
        }
    }
    let unit = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
    let plain = !name.is_empty() && !unit.contains('/');
    plain.then(|| path.join(format!("{unit}.scope")))
}

/// A cgroup that exists.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    mount: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup and its parents.
    pub(crate) fn create(relative: &Path) -> Result<Self, CgroupError> {
        Self::create_in(Path::new(MOUNT), relative)
    }

    pub(super) fn create_in(mount: &Path, relative: &Path) -> Result<Self, CgroupError> {
        // Only the root of a v2 hierarchy has this file.
        if !mount.join("cgroup.controllers").exists() {
            return Err(CgroupError::NotMounted);
        }
        let path = mount.join(relative);
        let make = || std::fs::create_dir_all(&path);
        // A second try: another pod's teardown may have removed an empty parent in between.
        make().or_else(|_| make()).map_err(|source| CgroupError::Io { action: "make", path: path.clone(), source })?;
        enable_controllers(mount, relative);
        Ok(Self { path, mount: mount.to_owned() })
    }

    /// The cgroup at a path that teardown found recorded.
    pub(crate) fn at(relative: &Path) -> Self {
        Self { path: Path::new(MOUNT).join(relative), mount: MOUNT.into() }
    }

    /// Below the mount.
    pub(super) fn relative(&self) -> PathBuf {
        self.path.strip_prefix(&self.mount).unwrap_or(&self.path).to_owned()
    }

    /// Reads a control file.
    pub(super) fn get(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.path.join(file)).ok()
    }

    /// Writes a control file. Where the node has not enabled the controller there is none, and no limit.
    pub(crate) fn set(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.path.join(file);
        let written = OpenOptions::new().write(true).open(&path).and_then(|mut open| open.write_all(value.as_bytes()));
        match written {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::warn!(file = %path.display(), "the node has not enabled this controller: the pod is not limited");
                Ok(())
            }
            written => written.map_err(|source| CgroupError::Io { action: "limit", path, source }),
        }
    }

    /// The file to which a process writes "0" to move itself in.
    pub(crate) fn entrance(&self) -> Result<File, CgroupError> {
        let path = self.path.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).map_err(|source| CgroupError::Io { action: "enter", path, source })
    }

    /// Kills what lives in it, except the calling process, and removes it. Idempotent.
    pub(crate) fn remove(&self, deadline: Duration) -> Result<(), CgroupError> {
        let begin = Instant::now();
        while self.kill_members() {
            if begin.elapsed() > deadline {
                return Err(CgroupError::StillPopulated { path: self.path.clone(), after: deadline });
            }
            std::thread::sleep(POLL);
        }
        loop {
            match std::fs::remove_dir(&self.path) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                // The last member may be past its exit and not yet out of the cgroup.
                Err(error) if error.kind() == ErrorKind::ResourceBusy && begin.elapsed() < deadline => {
                    std::thread::sleep(POLL);
                }
                Err(source) => {
                    return Err(CgroupError::Io { action: "remove", path: self.path.clone(), source });
                }
            }
        }
        if let Some(parent) = self.path.parent().filter(|parent| parent.ends_with(PARENT)) {
            // Ours and perhaps still in use by other pods.
            let _ = std::fs::remove_dir(parent);
        }
        Ok(())
    }

    /// Sends SIGKILL to every member; whether there was any.
    fn kill_members(&self) -> bool {
        let own = rustix::process::getpid();
        let members = std::fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        let mut any = false;
        for pid in members.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
            if pid == own {
                continue;
            }
            any = true;
            // A pidfd cannot hit a process that took over the number later.
            if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        }
        any
    }
}

/// Best effort: a delegated subtree or a busy parent may refuse some.
fn enable_controllers(mount: &Path, relative: &Path) {
    let mut dir = mount.to_owned();
    for component in relative.components() {
        let control = dir.join("cgroup.subtree_control");
        for controller in CONTROLLERS {
            if let Err(error) = std::fs::write(&control, controller) {
                tracing::debug!(cgroup = %dir.display(), controller, %error, "controller not enabled");
            }
        }
        dir.push(component);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::testing;

    fn of_pod(path: &str) -> Result<Placement, CgroupError> {
        Placement::of_pod(&testing::with("/linux/cgroupsPath", json!(path)), "ns", "p")
    }

    #[test]
    fn the_specs_cgroup_is_taken() {
        assert_eq!(of_pod("/kubepods/pod1/s1").unwrap(), Placement::Cgroup("kubepods/pod1/s1".into()));
        assert_eq!(of_pod("").unwrap(), Placement::Cgroup("husk/ns-p".into()));
    }

    #[test]
    fn paths_that_leave_the_hierarchy_are_refused() {
        for bad in ["/a/../../etc", "/", "a:b", "a:b:c:d", "a.slice:p:", "a--b.slice:p:n", "a.slice:p:../n", "/a:p:n"] {
            assert!(matches!(of_pod(bad), Err(CgroupError::Path { .. })), "{bad}");
        }
    }

    #[test]
    fn a_systemd_unit_lies_in_its_slices() {
        for (unit, path) in [
            (
                "kubepods-burstable-pod1.slice:cri-containerd:s1",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-s1.scope",
            ),
            (":husk:p", "system.slice/husk-p.scope"),
            ("-.slice::p", "p.scope"),
        ] {
            assert_eq!(of_pod(unit).unwrap(), Placement::Cgroup(path.into()), "{unit}");
        }
    }

    #[test]
    fn a_node_without_version_two_is_told_so() {
        let mount = tempfile::tempdir().unwrap();
        assert!(matches!(Cgroup::create_in(mount.path(), Path::new("husk/a")), Err(CgroupError::NotMounted)));
    }

    #[test]
    fn removing_a_cgroup_twice_is_fine() {
        let mount = tempfile::tempdir().unwrap();
        std::fs::write(mount.path().join("cgroup.controllers"), "").unwrap();
        let cgroup = Cgroup::create_in(mount.path(), Path::new("husk/a")).unwrap();
        // An ordinary directory keeps the files that were written; a cgroup's are part of it.
        std::fs::remove_file(mount.path().join("husk/cgroup.subtree_control")).unwrap();
        cgroup.remove(Duration::from_secs(1)).unwrap();
        cgroup.remove(Duration::from_secs(1)).unwrap();
        assert!(!mount.path().join("husk").exists());
    }
}
