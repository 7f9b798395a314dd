//! What a container takes beside what its cgroup counts: processes, their files, and the disk.

use std::fs;
use std::path::Path;

use husk_agent_api::v1::{ContainerStatsResponse, LayerStats};

use super::Container;
use crate::cgroup::stats;
use crate::error::{Context, Result};
use crate::fs::device_name;
use crate::paths;
use crate::pod::quota;

/// Descriptors that are looked at for one answer; a container may have millions.
const MAX_DESCRIPTORS: u64 = 8192;
/// Processes that are looked at for one answer.
const MAX_PROCESSES: usize = 1024;

/// Everything that is known of a container's use of the pod. Blocks for some milliseconds at most.
pub fn read(container: &Container) -> Result<ContainerStatsResponse> {
    let mut read = stats::read(&container.cgroup)?;
    let processes = container.cgroup.processes()?;
    read.processes = u64::try_from(processes.len()).unwrap_or(u64::MAX);
    if let Some(open) = open_files(&processes) {
        read.descriptors = Some(open.descriptors);
        read.sockets = Some(open.sockets);
    }
    // The rest is good without it.
    read.layer = layer(&paths::scratch_container(&container.id)).unwrap_or_else(|error| {
        crate::warning!("writable layer of {}: {error}", container.id);
        None
    });
    Ok(read)
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct OpenFiles {
    descriptors: u64,
    sockets: u64,
}

/// Those of all the processes; `None` when there are too many to be counted. A process that ends meanwhile has none.
fn open_files(processes: &[u32]) -> Option<OpenFiles> {
    if processes.len() > MAX_PROCESSES {
        return None;
    }
    let mut open = OpenFiles::default();
    for pid in processes {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            open.descriptors = open.descriptors.saturating_add(1);
            if open.descriptors > MAX_DESCRIPTORS {
                return None;
            }
            // Only names of what procfs itself makes up begin so.
            let target = fs::read_link(entry.path());
            if target.is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:")) {
                open.sockets = open.sockets.saturating_add(1);
            }
        }
    }
    Some(open)
}

/// The writable layer below `directory`; `None` when there is none.
fn layer(directory: &Path) -> Result<Option<LayerStats>> {
    if !directory.exists() {
        return Ok(None);
    }
    let Some(used) = quota::usage(directory)? else { return Ok(None) };
    let disk = rustix::fs::statvfs(directory).on("statvfs", directory.display())?;
    let device = rustix::fs::stat(directory).on("stat", directory.display())?.st_dev;
    Ok(Some(LayerStats {
        used_bytes: used.bytes,
        inodes_used: used.inodes,
        device: device_name(rustix::fs::major(device), rustix::fs::minor(device)),
        disk_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        disk_inodes: disk.f_files,
        disk_inodes_free: disk.f_ffree,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_and_sockets_are_counted_until_there_are_too_many() {
        let own = [std::process::id()];
        let before = open_files(&own).unwrap();
        let (_one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let after = open_files(&own).unwrap();
        assert!(after.sockets >= before.sockets.saturating_add(2), "{before:?} {after:?}");
        assert!(after.descriptors > after.sockets);
        assert_eq!(open_files(&[0; MAX_PROCESSES + 1]), None);
    }

    #[test]
    fn what_has_ended_has_no_files() {
        assert_eq!(open_files(&[u32::MAX]), Some(OpenFiles::default()));
    }

    #[test]
    fn a_container_without_a_layer_has_no_use_of_one() {
        assert_eq!(layer(Path::new("/nonexistent")).unwrap(), None);
    }
}
