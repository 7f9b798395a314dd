//! Reading `husk.shim.v1` messages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::api;
use crate::types::{ContainerInspect, Exit, PodInspect, PodStats, ProcessInfo, Slot, Status, TimelineStep};

impl From<api::PodInspect> for PodInspect {
    fn from(pod: api::PodInspect) -> Self {
        Self {
            id: pod.id,
            vmm_pid: Some(pod.vmm_pid).filter(|pid| *pid != 0),
            memory_mib: pod.memory_mib,
            vcpus: pod.vcpus,
            max_memory_mib: pod.max_memory_mib,
            max_vcpus: pod.max_vcpus,
            kernel_release: pod.kernel_release,
            started_at: wall_clock(pod.started_at_ns),
            timeline: pod
                .timeline
                .into_iter()
                .map(|step| TimelineStep { name: step.name, at_us: step.at_us })
                .collect(),
            slots: pod
                .slots
                .into_iter()
                .map(|slot| Slot { index: slot.index, device: slot.device, purpose: slot.purpose })
                .collect(),
            containers: pod.containers.into_iter().map(Into::into).collect(),
            vm_ended: Some(pod.vm_ended).filter(|reason| !reason.is_empty()),
        }
    }
}

impl From<api::PodStats> for PodStats {
    fn from(stats: api::PodStats) -> Self {
        Self {
            cgroup: stats.cgroup,
            cpu_us: stats.cpu_us,
            cpu_user_us: stats.cpu_user_us,
            cpu_system_us: stats.cpu_system_us,
            cpu_throttled_us: stats.cpu_throttled_us,
            memory: stats.memory,
            memory_peak: stats.memory_peak,
            memory_limit: Some(stats.memory_limit).filter(|limit| *limit != u64::MAX),
            memory_anon: stats.memory_anon,
            memory_inactive_file: stats.memory_inactive_file,
            page_faults: stats.page_faults,
            major_page_faults: stats.major_page_faults,
            vmm_resident: stats.vmm_resident,
        }
    }
}

impl From<api::ContainerInspect> for ContainerInspect {
    fn from(container: api::ContainerInspect) -> Self {
        let status = match container.state.enum_value() {
            Ok(api::State::CREATED) => Status::Created,
            Ok(api::State::RUNNING) => Status::Running,
            Ok(api::State::PAUSED) => Status::Paused,
            Ok(api::State::STOPPED) => Status::Stopped,
            Ok(api::State::STATE_UNSPECIFIED) | Err(_) => Status::Unknown,
        };
        let exit = (status == Status::Stopped)
            .then(|| Exit { code: container.exit_code, at: wall_clock(container.exited_at_ns) });
        Self { id: container.id, pid: container.pid, status, exit, oom_kills: container.oom_kills }
    }
}

impl From<api::ProcessInfo> for ProcessInfo {
    fn from(info: api::ProcessInfo) -> Self {
        Self {
            pid: info.pid,
            parent_pid: info.parent_pid,
            container_pid: info.container_pid,
            uid: info.uid,
            gid: info.gid,
            state: info.state,
            threads: info.threads,
            nice: info.nice,
            elapsed_ms: info.elapsed_ms,
            cpu_ms: info.cpu_ms,
            resident_bytes: info.resident_bytes,
            virtual_bytes: info.virtual_bytes,
            terminal: info.terminal,
            name: info.name,
            command: info.command,
        }
    }
}

/// Nanoseconds in 64 bits end in 2554, far inside what a `SystemTime` can say.
fn wall_clock(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stopped_container_has_an_exit() {
        let wire = |state: api::State| api::ContainerInspect {
            state: state.into(),
            exit_code: 137,
            oom_killed: true,
            oom_kills: 2,
            ..Default::default()
        };
        assert_eq!(ContainerInspect::from(wire(api::State::RUNNING)).exit, None);
        let stopped = ContainerInspect::from(wire(api::State::STOPPED));
        assert_eq!(stopped.exit.unwrap().code, 137);
        assert_eq!(stopped.oom_kills, 2);
    }
}
