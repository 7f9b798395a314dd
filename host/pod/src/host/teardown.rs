//! Removing a pod without the process that made it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cgroup::{Cgroup, CgroupError, Placement};
use super::dirs::{DirError, PodDirs, remove_file, write_record};
use crate::deadlines::Deadlines;

/// What could not be removed. Everything else was; calling again is safe.
#[derive(Debug, thiserror::Error)]
#[error("pod {namespace}/{id} is not wholly removed: {}", remains.join("; "))]
pub struct TeardownError {
    pub namespace: String,
    pub id: String,
    /// What remains, and why.
    pub remains: Vec<String>,
}

/// Ends a pod's VMM and removes all that the pod had on the host, whoever made it and however far that came. Blocks.
/// Idempotent: a pod that never was is removed, too.
pub fn teardown(namespace: &str, id: &str, state_dir: &Path, data_dir: &Path) -> Result<(), TeardownError> {
    let dirs = PodDirs::new(state_dir, data_dir);
    let mut remains = Vec::new();
    if let Err(error) = kill_recorded(&dirs, Deadlines::from_env().kill) {
        remains.push(error);
    }
    let recorded = recorded_cgroup(&dirs).is_some();
    remains.extend(release(&dirs));
    if !recorded && let Placement::Cgroup(path) = Placement::derived(namespace, id) {
        remains.extend(Cgroup::at(&path).remove(Deadlines::from_env().kill).err().map(|error| error.to_string()));
    }
    // The record of the cgroup must outlive the cgroup.
    if remains.is_empty() {
        remains.extend([state_dir, data_dir].into_iter().filter_map(remove_tree));
    }
    if remains.is_empty() { Ok(()) } else { Err(TeardownError { namespace: namespace.into(), id: id.into(), remains }) }
}

/// Removes what a VM without process has left, but the logs; answers with what could not be removed.
pub(crate) fn release(dirs: &PodDirs) -> Vec<String> {
    let mut remains = Vec::new();
    if let Some(path) = recorded_cgroup(dirs) {
        match Cgroup::at(&path).remove(Deadlines::from_env().kill) {
            Ok(()) => remains.extend(remove_file(&dirs.cgroup_record()).err().map(|error| error.to_string())),
            Err(error) => remains.push(error.to_string()),
        }
    }
    let files = [dirs.vsock(), dirs.vmm_pid(), dirs.scratch()];
    remains.extend(files.iter().filter_map(|file| remove_file(file).err()).map(|error| error.to_string()));
    remains
}

/// Makes the pod's cgroup, noted before it exists so that no crash can hide it.
pub(crate) fn create_cgroup(dirs: &PodDirs, relative: &Path) -> Result<Cgroup, CgroupOrDirError> {
    write_record(&dirs.cgroup_record(), &relative.to_string_lossy())?;
    Ok(Cgroup::create(relative)?)
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupOrDirError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Dir(#[from] DirError),
}

fn recorded_cgroup(dirs: &PodDirs) -> Option<PathBuf> {
    let text = std::fs::read_to_string(dirs.cgroup_record()).ok()?;
    // Written by us, but a path that climbs out of the hierarchy is never followed.
    let path = PathBuf::from(text.trim());
    let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    (plain && path.components().next().is_some()).then_some(path)
}

fn remove_tree(dir: &Path) -> Option<String> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Some(format!("cannot remove {}: {error}", dir.display()))
        }
        _ => None,
    }
}

/// Notes the VMM's process id with its start time, by which a later process with the same number is told apart.
pub(crate) fn record_process(dirs: &PodDirs, pid: u32) -> Result<(), DirError> {
    let start = start_time(pid).unwrap_or_default();
    write_record(&dirs.vmm_pid(), &format!("{pid} {start}"))
}

fn kill_recorded(dirs: &PodDirs, deadline: Duration) -> Result<(), String> {
    let Ok(text) = std::fs::read_to_string(dirs.vmm_pid()) else { return Ok(()) };
    let Some((Ok(pid), start)) = text.trim().split_once(' ').map(|(pid, start)| (pid.parse::<u32>(), start)) else {
        return Ok(());
    };
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let Ok(process) = pidfd_open(raw, PidfdFlags::empty()) else { return Ok(()) };
    // Checked after the pidfd is open: from here on the number cannot change its owner.
    if start_time(pid).as_deref() != Some(start) {
        return Ok(());
    }
    let _ = pidfd_send_signal(&process, Signal::KILL);
    let begin = Instant::now();
    let limit = Timespec::try_from(deadline).unwrap_or(Timespec { tv_sec: 10, tv_nsec: 0 });
    loop {
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)) {
            Ok(1..) => return Ok(()),
            Err(rustix::io::Errno::INTR) if begin.elapsed() < deadline => {}
            _ => return Err(format!("the VMM process {pid} did not end within {deadline:?} of SIGKILL")),
        }
    }
}

/// Field 22 of /proc/PID/stat, clock ticks since boot.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, field 2, may contain anything; it ends with the last parenthesis.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(root: &Path) -> PodDirs {
        let dirs = PodDirs::new(&root.join("state"), &root.join("data"));
        dirs.create().unwrap();
        dirs
    }

    #[test]
    fn a_pod_that_never_was_is_removed() {
        let root = tempfile::tempdir().unwrap();
        teardown("ns", "p", &root.path().join("a"), &root.path().join("b")).unwrap();
    }

    #[test]
    fn files_and_the_vmm_are_removed_and_again() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        record_process(&dirs, child.id()).unwrap();
        std::fs::write(dirs.scratch(), "x").unwrap();
        std::fs::write(dirs.console_log(), "x").unwrap();
        teardown("ns", "p", dirs.state(), dirs.data()).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!dirs.state().exists() && !dirs.data().exists());
        teardown("ns", "p", dirs.state(), dirs.data()).unwrap();
    }

    #[test]
    fn another_process_with_the_number_lives_on() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(dirs.vmm_pid(), format!("{} 1", child.id())).unwrap();
        teardown("ns", "p", dirs.state(), dirs.data()).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_forged_cgroup_record_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        for forged in ["../../etc", "/etc", "", "a/../../b"] {
            std::fs::write(dirs.cgroup_record(), forged).unwrap();
            assert_eq!(recorded_cgroup(&dirs), None, "{forged}");
        }
        std::fs::write(dirs.cgroup_record(), "husk/ns-p\n").unwrap();
        assert_eq!(recorded_cgroup(&dirs), Some("husk/ns-p".into()));
    }
}
