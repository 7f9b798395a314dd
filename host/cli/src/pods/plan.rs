//! What a user asked for, whichever way it was said: `husk run` and `husk kube play` both end in a [`PodPlan`].
//!
//! A plan names images and users as the user did; [`crate::spec`] makes OCI specs of it once the images are known.

mod health;
mod security;
mod storage;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::network::plan::NetworkPlan;

pub(crate) use health::{Action, HealthPlan, HttpGet, Probe};
pub(crate) use security::{Exposure, SeccompPlan};
pub(crate) use storage::{
    Access, DevicePlan, HostPath, HostPathKind, ImageSource, Medium, MountFlag, MountOptions, MountPlan, MountSource,
    Propagation, VolumePlan, VolumeSource,
};
pub(crate) use users::{IdRange, UsersPlan};

/// A pod that is to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodPlan {
    pub(crate) name: String,
    /// The Kubernetes namespace, a label to husk. Not the shim's namespace.
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) hostname: String,
    /// NIS domain name; none: "(none)", as Linux says it.
    pub(crate) domainname: Option<String>,
    pub(crate) share_process_namespace: bool,
    pub(crate) restart_policy: RestartPolicy,
    pub(crate) exit_policy: ExitPolicy,
    /// Made by `husk run` for one container, and removed with it.
    pub(crate) private: bool,
    /// Its containers are called POD-NAME, because names in a manifest are unique only within their pod.
    pub(crate) qualified_names: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) network: NetworkPlan,
    /// Bytes of /dev/shm; else the shim's choice.
    pub(crate) shm_size: Option<u64>,
    /// Of all containers together; else the sum of theirs.
    pub(crate) limits: Limits,
    /// Of the host; else the shim's choice.
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) volumes: Vec<VolumePlan>,
    pub(crate) containers: Vec<ContainerPlan>,
}

/// Whether a container that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    /// Podman says `no`.
    #[default]
    #[value(alias = "no")]
    Never,
}

/// What becomes of a pod when the last of its containers has ended for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExitPolicy {
    /// Its VM is stopped.
    #[default]
    Stop,
    /// It runs on, empty, until it is stopped.
    Continue,
}

/// The part that a container plays in its pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Runs to completion before the next one begins.
    Init,
    /// An init container with restartPolicy Always: once it has started the next one begins; it ends with the pod.
    Sidecar,
    #[default]
    App,
    /// Added for a while to look at the others; the pod neither waits for it nor is judged by it.
    Ephemeral,
}

/// Whose processes a container sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PidPlan {
    /// Its own or, in a pod that shares them, the pod's.
    #[default]
    Own,
    /// Those of the container whose task has this pid.
    Task(u32),
}

/// When to ask a registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PullPolicy {
    /// When the image is not in the store.
    #[default]
    Missing,
    Always,
    Never,
}

/// A container that is to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerPlan {
    /// Its name in the pod.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) image: String,
    pub(crate) pull: PullPolicy,
    /// Replaces the image's Entrypoint, and then its Cmd is not used either.
    pub(crate) entrypoint: Option<Vec<String>>,
    /// Replaces the image's Cmd.
    pub(crate) args: Option<Vec<String>>,
    /// On top of the image's Env; later entries win.
    pub(crate) env: Vec<(String, String)>,
    /// Variables whose values are, or contain, secrets.
    pub(crate) secret_env: BTreeSet<String>,
    /// Words of `entrypoint` and `args` that contain secrets.
    pub(crate) secret_words: BTreeSet<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) user: UserPlan,
    pub(crate) pids: PidPlan,
    /// Its user namespace; else the guest's own.
    pub(crate) users: Option<UsersPlan>,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) limits: Limits,
    pub(crate) capabilities: CapabilityPlan,
    pub(crate) read_only_rootfs: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: SeccompPlan,
    pub(crate) exposure: Exposure,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) terminal: bool,
    /// Standard input stays open.
    pub(crate) stdin: bool,
    /// Signal number; else the image's StopSignal, else SIGTERM.
    pub(crate) stop_signal: Option<u32>,
    /// Seconds between the stop signal and SIGKILL.
    pub(crate) stop_timeout: u64,
    pub(crate) restart: RestartPolicy,
    pub(crate) auto_remove: bool,
    pub(crate) health: HealthPlan,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Who the container runs as. Each part that is absent is the image's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UserPlan {
    /// Name or number.
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) supplemental_groups: Vec<u32>,
    /// Of no groups but these: those that the image has for the user do not count.
    pub(crate) strict_groups: bool,
    pub(crate) must_not_be_root: bool,
}

/// Enforced by the container's cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// Thousandths of a CPU.
    pub(crate) cpu_milli: Option<u64>,
    /// Relative weight as cgroup v1 counted it (2 to 262144), from requests.cpu.
    pub(crate) cpu_shares: Option<u64>,
    pub(crate) pids: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CapabilityPlan {
    pub(crate) add: Vec<String>,
    pub(crate) drop: Vec<String>,
}

/// A resource limit by its OCI name, `RLIMIT_NOFILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rlimit {
    pub(crate) name: String,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}
