//! cgroup v2 directories: one for the agent, one for the pod, one below it for each container.
//!
//! `limits` writes a container's limits, `devices` its device rules, `stats` reads its counters, `pressure`
//! some of them; `sysctls` protects
//! kernel parameters from all of them. Which cgroup belongs to what is decided by `boot` and `container`.

mod bpf;
pub mod devices;
pub mod limits;
mod pressure;
pub mod stats;
pub mod sysctls;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Deepest tree of cgroups that a container may make below its own.
const MAX_DEPTH: &str = "32";
/// Most cgroups that a container may make below its own.
const MAX_DESCENDANTS: &str = "1024";
/// Longest control file that is read: a `cgroup.procs` of some hundred thousand processes.
const MAX_FILE: u64 = 4 << 20;
/// The control files that may be left to others (`Documentation/admin-guide/cgroup-v2.rst`, "Delegation").
const DELEGATED: &str = "/sys/kernel/cgroup/delegate";

/// A cgroup directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The cgroup at `path`, which may not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The child cgroup of that name.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self(self.0.join(name))
    }

    /// Makes the directory.
    pub fn create(&self) -> Result<()> {
        std::fs::create_dir(&self.0).on("mkdir", self.0.display())
    }

    /// Bounds what the processes inside may build below; for a container's cgroup.
    pub fn bound_subtree(&self) -> Result<()> {
        self.write("cgroup.max.depth", MAX_DEPTH)?;
        self.write("cgroup.max.descendants", MAX_DESCENDANTS)
    }

    /// Lets a user make cgroups below and move processes there, by the files that the kernel says are for it; the limits
    /// here stay the agent's.
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<()> {
        let files = std::fs::read_to_string(DELEGATED).on("read", DELEGATED)?;
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        for path in std::iter::once(self.0.clone()).chain(files.lines().map(|file| self.0.join(file))) {
            match rustix::fs::chown(&path, owner.0, owner.1) {
                // Of a controller that is not here.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).on("chown", path.display()),
            }
        }
        Ok(())
    }

    /// Hands every available controller down to the children.
    pub fn enable_controllers(&self) -> Result<()> {
        let available = self.read("cgroup.controllers")?;
        for controller in available.split_ascii_whitespace() {
            self.write("cgroup.subtree_control", &format!("+{controller}"))?;
        }
        Ok(())
    }

    /// Writes one control file in one write(2).
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.0.join(file);
        let fd = rustix::fs::open(&path, OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC, Mode::empty())
            .on("open", path.display())?;
        rustix::io::write(fd, value.as_bytes()).on("write", format_args!("{} {value:?}", path.display())).map(drop)
    }

    /// Reads one control file.
    pub fn read(&self, file: &str) -> Result<String> {
        use std::io::Read;
        let path = self.0.join(file);
        let mut text = String::new();
        let opened = std::fs::File::open(&path).on("open", path.display())?;
        opened.take(MAX_FILE).read_to_string(&mut text).on("read", path.display())?;
        Ok(text)
    }

    /// One number of a flat keyed file such as `memory.events`; 0 when the key is missing.
    pub fn counter(&self, file: &str, key: &str) -> Result<u64> {
        Ok(stats::keyed(&self.read(file)?, key))
    }

    /// The directory, for `CLONE_INTO_CGROUP`.
    pub fn open(&self) -> Result<OwnedFd> {
        rustix::fs::open(&self.0, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .on("open", self.0.display())
    }

    /// SIGKILL to every process here and below, whatever they fork meanwhile.
    pub fn kill(&self) -> Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Whether there is any process here or below.
    pub fn populated(&self) -> Result<bool> {
        Ok(self.counter("cgroup.events", "populated")? != 0)
    }

    /// Kills until nothing is left. Waits at most `limit`, then says which processes do not die.
    pub async fn kill_and_wait(&self, limit: Duration) -> Result<()> {
        if !self.0.exists() {
            return Ok(());
        }
        self.kill()?;
        let mut pause = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        while self.populated()? {
            if waited >= limit {
                let stuck: Vec<_> = self.processes()?.into_iter().take(8).map(|pid| pid.to_string()).collect();
                return Err(Error::Internal(format!(
                    "processes {} of {} have not ended {} s after SIGKILL; they wait for a device or file system",
                    stuck.join(", "),
                    self.0.display(),
                    limit.as_secs()
                )));
            }
            tokio::time::sleep(pause).await;
            waited = waited.saturating_add(pause);
            pause = pause.saturating_mul(2).min(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Every process here and below, in the agent's pid namespace.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for directory in self.descendants()? {
            let text = match Self(directory).read("cgroup.procs") {
                Ok(text) => text,
                // A threaded or vanished child.
                Err(Error::System { errno: Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP, .. }) => continue,
                Err(error) => return Err(error),
            };
            // 0 stands for a process that our pid namespace does not see.
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// This directory and those below, parents first.
    fn descendants(&self) -> Result<Vec<PathBuf>> {
        let mut all = vec![self.0.clone()];
        let mut at = 0;
        while let Some(directory) = all.get(at).cloned() {
            at = at.saturating_add(1);
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && at > 1 => continue,
                Err(error) => return Err(error).on("open", directory.display()),
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    all.push(entry.path());
                }
            }
        }
        Ok(all)
    }

    /// Removes this cgroup and those below. Nothing there is success.
    pub fn remove(&self) -> Result<()> {
        if !self.0.exists() {
            return Ok(());
        }
        for directory in self.descendants()?.iter().rev() {
            crate::fs::remove::remove_empty(directory)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake() -> (tempfile::TempDir, Cgroup) {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::at(dir.path());
        (dir, cgroup)
    }

    #[test]
    fn processes_of_the_whole_subtree_are_listed_once() {
        let (dir, cgroup) = fake();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("cgroup.procs"), "7\n3\n").unwrap();
        std::fs::write(dir.path().join("a/b/cgroup.procs"), "9\n3\n0\n").unwrap();
        assert_eq!(cgroup.processes().unwrap(), [3, 7, 9]);
    }

    #[test]
    fn a_counter_is_found_by_its_key() {
        let (dir, cgroup) = fake();
        std::fs::write(dir.path().join("memory.events"), "low 0\noom 2\noom_kill 5\n").unwrap();
        assert_eq!(cgroup.counter("memory.events", "oom_kill").unwrap(), 5);
        assert_eq!(cgroup.counter("memory.events", "nothing").unwrap(), 0);
    }

    #[test]
    fn removal_takes_children_first_and_is_idempotent() {
        let (dir, _) = fake();
        let cgroup = Cgroup::at(dir.path().join("container"));
        std::fs::create_dir_all(cgroup.path().join("a/b")).unwrap();
        cgroup.remove().unwrap();
        assert!(!cgroup.path().exists());
        cgroup.remove().unwrap();
    }
}
