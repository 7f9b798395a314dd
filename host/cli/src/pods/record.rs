//! What is kept of a pod in its `pod.json`: what it is made of, what is wanted of it, and how far it has come.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::plan::{ExitPolicy, HealthPlan, Kind, RestartPolicy};
use super::process::ProcessId;
use crate::network::plan::NetworkPlan;

/// Written into every record; a newer one is not touched.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) hostname: String,
    pub(crate) created: Timestamp,
    pub(crate) share_process_namespace: bool,
    pub(crate) restart_policy: RestartPolicy,
    pub(crate) exit_policy: ExitPolicy,
    /// Made for one container and removed with it.
    pub(crate) private: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) network: NetworkPlan,
    /// Its addresses, once it is attached to its network.
    #[serde(default)]
    pub(crate) ips: Vec<IpAddr>,
    /// How long the attaching took, in milliseconds; the boot of its VM comes after it.
    #[serde(default)]
    pub(crate) network_ms: Option<f64>,
    /// What the pod was given as a whole, whatever its containers' limits add up to.
    #[serde(default)]
    pub(crate) own_size: OwnSize,
    /// Named volumes that the pod holds.
    pub(crate) named_volumes: Vec<String>,
    pub(crate) phase: Phase,
    /// Why it is in this phase, when that needs saying.
    pub(crate) message: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
    /// Boot timeline of its VM and the size that it had last, kept for when the VM is gone.
    pub(crate) boot: Option<Boot>,
    /// Init containers, sidecars and app containers in the order of their start.
    pub(crate) containers: Vec<ContainerRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Its VM or its init containers are on their way.
    Pending,
    Running,
    /// Every container ended with exit code 0.
    Succeeded,
    /// Some container, or the pod's VM, failed.
    Failed,
    /// Ended on request.
    Stopped,
}

impl Phase {
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) memory_mib: u64,
    pub(crate) vcpus: u32,
    pub(crate) kernel: String,
    /// Milliseconds since the shim's start, by the name of the step.
    pub(crate) timeline_ms: Vec<(String, f64)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnSize {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// Thousandths of a CPU.
    pub(crate) cpu_milli: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    /// Unique among all containers: `foo-app`, or `keen_walnut`.
    pub(crate) name: String,
    /// In its pod: `app`.
    pub(crate) short_name: String,
    pub(crate) kind: Kind,
    /// It came into the pod after that was made.
    #[serde(default)]
    pub(crate) joined: bool,
    /// As the user named it.
    pub(crate) image: String,
    pub(crate) image_id: String,
    /// Ids of the images that it mounts as volumes.
    #[serde(default)]
    pub(crate) volume_images: Vec<String>,
    /// Environment variables that are not to be shown.
    #[serde(default)]
    pub(crate) secret_env: BTreeSet<String>,
    /// EROFS image of the root file system.
    pub(crate) rootfs: PathBuf,
    /// The files in which it goes on.
    #[serde(default)]
    pub(crate) rootfs_devices: Vec<PathBuf>,
    pub(crate) command: Vec<String>,
    pub(crate) created: Timestamp,
    pub(crate) terminal: bool,
    pub(crate) stdin: bool,
    pub(crate) stop_signal: u32,
    /// Seconds.
    pub(crate) stop_timeout: u64,
    pub(crate) restart: RestartPolicy,
    pub(crate) auto_remove: bool,
    #[serde(default)]
    pub(crate) health: HealthPlan,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) wanted: Wanted,
    pub(crate) state: State,
    /// Who waits for it, restarts it and records its end.
    pub(crate) supervisor: Option<ProcessId>,
}

/// What the user wants of a container; commands write it, its supervisor obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wanted {
    Run,
    /// Not to be started again.
    Stop,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) status: Status,
    /// In the guest's initial pid namespace, while it runs.
    pub(crate) pid: Option<u32>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
    /// Of the last run.
    pub(crate) exit_code: Option<u32>,
    /// Processes that were killed for want of memory.
    #[serde(default)]
    pub(crate) oom_kills: u64,
    /// Why it could not be started, or that its VM went away.
    pub(crate) message: Option<String>,
    pub(crate) restarts: u32,
    /// When the back-off ends.
    pub(crate) next_start: Option<Timestamp>,
    /// What startup and readiness probe say of this run; absent where there are none.
    #[serde(default)]
    pub(crate) ready: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Not started yet.
    #[default]
    Created,
    Running,
    /// Every process of it stands still.
    Paused,
    /// Ended, and to be started again after a back-off.
    Restarting,
    Exited,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

impl State {
    pub(crate) fn running(&mut self, pid: u32, at: Timestamp) {
        *self = Self {
            status: Status::Running,
            pid: Some(pid),
            started: Some(at),
            restarts: self.restarts,
            ..Self::default()
        };
    }

    pub(crate) fn exited(&mut self, code: u32, oom_kills: u64, at: Timestamp, message: Option<String>) {
        *self = Self {
            status: Status::Exited,
            pid: None,
            started: self.started,
            finished: Some(at),
            exit_code: Some(code),
            oom_kills,
            message,
            restarts: self.restarts,
            next_start: None,
            ready: None,
        };
    }

    /// Running, or about to be started again.
    pub(crate) fn is_active(&self) -> bool {
        self.has_processes() || self.status == Status::Restarting
    }

    /// Running, if only paused.
    pub(crate) fn has_processes(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

impl ContainerRecord {
    /// Running, and as far as its readiness probe says, ready to serve.
    pub(crate) fn is_ready(&self) -> bool {
        self.state.status == Status::Running && self.state.ready != Some(false)
    }

    /// There will be no restart after all.
    pub(crate) fn stays_ended(&mut self) {
        if self.state.status == Status::Restarting {
            self.state.status = Status::Exited;
        }
        self.state.next_start = None;
    }
}

impl PodRecord {
    pub(crate) fn container(&self, id: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|c| c.id == id)
    }

    pub(crate) fn container_mut(&mut self, id: &str) -> Option<&mut ContainerRecord> {
        self.containers.iter_mut().find(|c| c.id == id)
    }

    /// Marks the pod as ended. What still counted as running in it is not any more.
    pub(crate) fn end(&mut self, phase: Phase, message: Option<String>, at: Timestamp) {
        for container in self.containers.iter_mut().filter(|c| c.state.is_active()) {
            match container.state.status {
                Status::Running | Status::Paused => container.state.exited(137, 0, at, message.clone()),
                _ => container.state.status = Status::Exited,
            }
            container.state.next_start = None;
        }
        self.phase = phase;
        self.message = message;
        self.finished = Some(at);
    }
}
