//! What is written down of a sandbox and of a container.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A sandbox as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub id: String,
    /// RuntimeClass handler; empty is the default one.
    pub handler: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    pub phase: SandboxPhase,
    /// Addresses of the pod, the primary one first.
    pub ips: Vec<IpAddr>,
    /// The number by which its task is known; containers name the pod's namespaces with it.
    pub task_pid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxPhase {
    /// RunPodSandbox has not answered yet: after a restart it is undone.
    Making,
    Ready,
    /// Its VM has ended, by request or by itself. It never becomes ready again.
    NotReady,
}

/// A container as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub id: String,
    pub sandbox: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    pub phase: ContainerPhase,
    /// Digest of the image's config.
    pub image_id: String,
    /// `name@digest` of the image; its id when it came by no registry.
    pub image_ref: String,
    pub user: UserRecord,
    /// Number of the signal that stops it.
    pub stop_signal: u32,
    /// The resources in force, a `LinuxContainerResources` as protobuf: those of its creation, or of the last update.
    #[serde(with = "hex_bytes")]
    pub resources: Vec<u8>,
}

/// Who a container's first process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum ContainerPhase {
    /// CreateContainer has not answered yet: after a restart it is undone.
    Making,
    Created,
    Running {
        started_at: i64,
    },
    Exited {
        /// 0: it never ran.
        started_at: i64,
        finished_at: i64,
        exit_code: i32,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`, `Unknown`.
        reason: String,
        message: String,
    },
}

impl ContainerPhase {
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    #[must_use]
    pub fn has_exited(&self) -> bool {
        matches!(self, Self::Exited { .. })
    }
}

mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
