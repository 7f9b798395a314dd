//! Questions about tasks, and small requests that change no phase.

use std::time::{SystemTime, UNIX_EPOCH};

use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use husk_client::{Exit, api};
use husk_pod::{BootTimeline, SlotInfo, VmSize};
use oci_spec::runtime::LinuxResources;

use super::engine::{Engine, Kind, Vm};
use super::error::Error;
use super::process::Phase;
use super::stats;
use super::usage;
use crate::stdio;

/// One process as State answers it.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) bundle: String,
    pub(super) phase: Phase,
    pub(super) streams: stdio::Request,
}

impl Engine {
    pub(super) async fn wait(&self, id: &str, exec: &str) -> Result<Exit, Error> {
        let process = self.task(id)?.process(exec)?;
        Ok(process.wait().await)
    }

    pub(super) fn snapshot(&self, id: &str, exec: &str) -> Result<Snapshot, Error> {
        let task = self.task(id)?;
        let process = task.process(exec)?;
        let bundle = task.bundle.to_string_lossy().into_owned();
        Ok(Snapshot { bundle, phase: process.phase(), streams: process.streams.clone() })
    }

    /// Process ids in the guest; of the sandbox, the VMM's.
    pub(super) async fn pids(&self, id: &str) -> Result<Vec<u32>, Error> {
        let task = self.task(id)?;
        if task.kind == Kind::Sandbox {
            return Ok(self.running_pod().map(|pod| pod.vmm_pid()).into_iter().collect());
        }
        match task.init.phase() {
            Phase::Created { .. } | Phase::Starting { .. } | Phase::Running { .. } | Phase::Paused { .. } => {
                Ok(self.running_pod()?.pids(id).await?)
            }
            Phase::Creating | Phase::Stopped { .. } | Phase::Deleting { .. } | Phase::Deleted { .. } => Ok(Vec::new()),
        }
    }

    /// The same with what the guest says of each.
    pub(super) async fn processes(&self, id: &str) -> Result<Vec<api::ProcessInfo>, Error> {
        let task = self.task(id)?;
        if task.kind == Kind::Sandbox {
            return Err(Error::Invalid(format!("{id} is the pod itself; ask for one of its containers")));
        }
        let processes = self.running_pod()?.processes(id).await?;
        Ok(processes.into_iter().map(process).collect())
    }

    /// Resource use of a container, also after its end, or of the whole pod.
    pub(super) async fn stats(&self, id: &str) -> Result<Metrics, Error> {
        let task = self.task(id)?;
        Ok(stats::metrics(&self.running_pod()?.stats(guest_id(task.kind, id)).await?))
    }

    /// The same with what containerd has no words for.
    pub(super) async fn usage(&self, id: &str) -> Result<api::Usage, Error> {
        let task = self.task(id)?;
        Ok(usage::usage(self.running_pod()?.stats(guest_id(task.kind, id)).await?))
    }

    /// What the pod takes of the host.
    pub(super) fn host_stats(&self) -> Result<api::PodStats, Error> {
        let usage = self.running_pod()?.host_usage();
        Ok(api::PodStats {
            cgroup: usage.cgroup.to_string_lossy().into_owned(),
            cpu_us: usage.cpu_us,
            cpu_user_us: usage.cpu_user_us,
            cpu_system_us: usage.cpu_system_us,
            cpu_throttled_us: usage.cpu_throttled_us,
            memory: usage.memory,
            memory_peak: usage.memory_peak,
            memory_limit: usage.memory_limit,
            memory_anon: usage.memory_anon,
            vmm_resident: usage.vmm_resident,
            memory_inactive_file: usage.memory_inactive_file,
            page_faults: usage.page_faults,
            major_page_faults: usage.major_page_faults,
            ..api::PodStats::default()
        })
    }

    /// Changes limits while the container, or the pod, lives.
    pub(super) async fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), Error> {
        let task = self.task(id)?;
        let pod = self.running_pod()?;
        match task.kind {
            Kind::Sandbox => self.resize_pod(resources).await.map(drop),
            Kind::Container | Kind::Single => Ok(pod.update(id, resources).await?),
        }
    }

    /// Changes the limits of the whole pod; answers the size that its VM has then.
    pub(super) async fn resize_pod(&self, resources: &LinuxResources) -> Result<VmSize, Error> {
        let resized = self.running_pod()?.resize(resources).await;
        resized.map_err(|source| Error::Resize { pod: self.settings.pod.clone(), source: Box::new(source) })
    }

    pub(super) async fn resize(&self, id: &str, exec: &str, rows: u32, columns: u32) -> Result<(), Error> {
        let process = self.task(id)?.process(exec)?;
        if !process.streams.terminal {
            return Err(Error::Invalid(format!("{} has no terminal to resize", process.what())));
        }
        Ok(self.running_pod()?.resize_terminal(id, process.exec.as_deref(), rows, columns).await?)
    }

    /// Ends standard input after what has been written so far. Nothing happens when there is none.
    pub(super) fn close_stdin(&self, id: &str, exec: &str) -> Result<(), Error> {
        let process = self.task(id)?.process(exec)?;
        if let Some(pumps) = process.pumps() {
            pumps.close_stdin();
        }
        Ok(())
    }

    /// Opens the container's log anew.
    pub(super) fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let pumps = self.task(id)?.init.pumps();
        match pumps.map(|pumps| pumps.reopen_logs()).transpose()? {
            Some(1..) => Ok(()),
            Some(0) | None => Err(Error::NoLog(id.to_owned())),
        }
    }

    /// The VM and what became of every container.
    pub(super) fn inspect(&self) -> api::PodInspect {
        let (pod, ended) = match self.vm() {
            Vm::Running(pod) => (Some(pod), String::new()),
            Vm::Ended { pod, reason } => (Some(pod), reason),
            Vm::Absent | Vm::Starting => (None, String::new()),
        };
        let mut answer = api::PodInspect {
            id: self.settings.pod.clone(),
            started_at_ns: nanoseconds(self.settings.started_at),
            containers: self.containers(),
            ..api::PodInspect::default()
        };
        if let Some(pod) = pod {
            let info = pod.info();
            answer.vmm_pid = if ended.is_empty() { info.vmm_pid } else { 0 };
            answer.memory_mib = info.size.memory_mib;
            answer.vcpus = u32::from(info.size.vcpus);
            answer.max_memory_mib = info.most.memory_mib;
            answer.max_vcpus = u32::from(info.most.vcpus);
            answer.kernel_release = info.kernel_release;
            answer.timeline = timeline(self.vm_requested_us(), &info.timeline);
            answer.slots = info.slots.into_iter().map(slot).collect();
        }
        answer.vm_ended = ended;
        answer
    }

    fn containers(&self) -> Vec<api::ContainerInspect> {
        let containers = self.tasks().into_iter().filter(|task| task.kind != Kind::Sandbox);
        containers
            .map(|task| {
                let phase = task.init.phase();
                let state = match phase {
                    Phase::Creating | Phase::Created { .. } => api::State::CREATED,
                    Phase::Starting { .. } | Phase::Running { .. } => api::State::RUNNING,
                    Phase::Paused { .. } => api::State::PAUSED,
                    Phase::Stopped { .. } | Phase::Deleting { .. } | Phase::Deleted { .. } => api::State::STOPPED,
                };
                api::ContainerInspect {
                    id: task.id.clone(),
                    pid: phase.pid(),
                    state: state.into(),
                    exit_code: phase.exit().map(|exit| exit.code).unwrap_or_default(),
                    exited_at_ns: phase.exit().map(|exit| nanoseconds(exit.at)).unwrap_or_default(),
                    oom_killed: task.oom_kills() > 0,
                    oom_kills: task.oom_kills(),
                    ..api::ContainerInspect::default()
                }
            })
            .collect()
    }
}

/// Of the sandbox the whole pod is meant.
fn guest_id(kind: Kind, id: &str) -> Option<&str> {
    match kind {
        Kind::Sandbox => None,
        Kind::Container | Kind::Single => Some(id),
    }
}

/// A pod's start in the order of its steps. The VMM counts from its own start, the guest from when it first ran.
fn timeline(requested_us: u64, boot: &BootTimeline) -> Vec<api::TimelineStep> {
    let spawned = requested_us.saturating_add(boot.vmm_spawned_us);
    let by_vmm = |us: u64| spawned.saturating_add(us);
    let by_guest = |us: u64| by_vmm(boot.vmm.started_us).saturating_add(us);
    let by_host = |us: u64| requested_us.saturating_add(us);
    let mut steps = vec![
        ("requested", requested_us),
        ("vmm_spawned", spawned),
        ("vmm_requested", by_vmm(boot.vmm.requested_us)),
        ("vm_created", by_vmm(boot.vmm.vm_created_us)),
        ("loaded", by_vmm(boot.vmm.loaded_us)),
        ("guest_started", by_vmm(boot.vmm.started_us)),
        ("agent_main", by_guest(boot.agent_main_us)),
        ("agent_listening", by_guest(boot.agent_listening_us)),
        ("agent_ready", by_vmm(boot.vmm.ready_us)),
        ("connected", by_host(boot.hello_us)),
        ("resumed", by_host(boot.resumed_us)),
        ("scratch_mounted", by_host(boot.scratch_us)),
    ];
    if boot.network_us > 0 {
        steps.push(("network_up", by_host(boot.network_us)));
    }
    // The guest's clock is its own; a stable sort keeps the steps' order where times agree.
    steps.sort_by_key(|(_, at_us)| *at_us);
    steps
        .into_iter()
        .map(|(name, at_us)| api::TimelineStep { name: name.into(), at_us, ..api::TimelineStep::default() })
        .collect()
}

fn process(info: husk_pod::v1::ProcessInfo) -> api::ProcessInfo {
    api::ProcessInfo {
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
        ..api::ProcessInfo::default()
    }
}

fn slot(slot: SlotInfo) -> api::Slot {
    let access = if slot.read_only { "read-only" } else { "read-write" };
    let purpose = format!("{} ({access})", slot.image.display());
    api::Slot { index: slot.slot, device: slot.name, purpose, ..api::Slot::default() }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
