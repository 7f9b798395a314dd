//! What is done to a container from outside while it lives: hooks and probes.

use serde::{Deserialize, Serialize};

/// Hooks and probes of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthPlan {
    /// After its start; a failure kills it.
    pub(crate) post_start: Option<Action>,
    /// Before its stop signal, within its grace.
    pub(crate) pre_stop: Option<Action>,
    /// Until it has succeeded once there are no others; its failure ends the container.
    pub(crate) startup: Option<Probe>,
    pub(crate) readiness: Option<Probe>,
    /// Its failure ends the container.
    pub(crate) liveness: Option<Probe>,
}

/// Something that succeeds or fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// A command in the container; exit code 0 is success.
    Exec {
        command: Vec<String>,
    },
    /// A GET; an answer of 200 to 399 is success.
    Http(HttpGet),
    /// A connection, to the pod unless a host is named.
    Tcp {
        host: Option<String>,
        port: u16,
    },
    /// `grpc.health.v1.Health/Check`; SERVING is success.
    Grpc {
        port: u16,
        service: String,
    },
    Sleep {
        seconds: u64,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpGet {
    /// TLS, without a look at the certificate.
    pub(crate) https: bool,
    /// The pod's address, unless named.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// An action repeated; times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) action: Action,
    pub(crate) initial_delay: u32,
    pub(crate) period: u32,
    pub(crate) timeout: u32,
    /// So many in a row make a change.
    pub(crate) success_threshold: u32,
    pub(crate) failure_threshold: u32,
    /// Between stop signal and SIGKILL when this probe ends the container; else the container's own.
    pub(crate) grace: Option<u64>,
}

impl Action {
    /// Whether it goes to the pod's address.
    pub(crate) fn needs_network(&self) -> bool {
        match self {
            Self::Exec { .. } | Self::Sleep { .. } => false,
            Self::Http(get) => get.host.is_none(),
            Self::Tcp { host, .. } => host.is_none(),
            Self::Grpc { .. } => true,
        }
    }
}

impl HealthPlan {
    /// The field whose action goes to the pod's address, if there is one.
    pub(crate) fn needs_network(&self) -> Option<&'static str> {
        let probe = |probe: &Option<Probe>| probe.as_ref().is_some_and(|probe| probe.action.needs_network());
        let hook = |hook: &Option<Action>| hook.as_ref().is_some_and(Action::needs_network);
        [
            ("lifecycle.postStart", hook(&self.post_start)),
            ("lifecycle.preStop", hook(&self.pre_stop)),
            ("startupProbe", probe(&self.startup)),
            ("readinessProbe", probe(&self.readiness)),
            ("livenessProbe", probe(&self.liveness)),
        ]
        .into_iter()
        .find_map(|(field, needs)| needs.then_some(field))
    }

    /// Whether somebody has to say when the container is ready.
    pub(crate) fn tells_readiness(&self) -> bool {
        self.startup.is_some() || self.readiness.is_some()
    }
}
