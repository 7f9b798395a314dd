//! How a pod is reached, as the user said it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A pod's network. The default is none: an address is given where one is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkPlan {
    pub(crate) mode: NetworkMode,
    pub(crate) ports: Vec<PortMapping>,
    /// Asked of the network's address management.
    pub(crate) ip: Option<IpAddr>,
    /// `02:00:00:00:00:01`.
    pub(crate) mac: Option<String>,
    pub(crate) dns: DnsPlan,
    /// Further lines of /etc/hosts.
    pub(crate) hosts: Vec<(IpAddr, String)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NetworkMode {
    /// The built-in bridge.
    Bridge,
    /// A network of /etc/cni/net.d.
    Named(String),
    /// Only the pod's own loopback.
    #[default]
    None,
}

/// A port of the host that leads to one of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortMapping {
    /// Absent: every address of the host.
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) host_port: u16,
    pub(crate) container_port: u16,
    pub(crate) protocol: Protocol,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// What /etc/resolv.conf says; where it is empty, what the host's own says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DnsPlan {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl NetworkPlan {
    /// Only the pod's own loopback.
    pub(crate) fn is_none(&self) -> bool {
        self.mode == NetworkMode::None
    }
}

impl Protocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl std::fmt::Display for PortMapping {
    /// As `husk ps` and podman show it: `0.0.0.0:8080->80/tcp`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            Some(IpAddr::V4(ip)) => write!(f, "{ip}")?,
            None => f.write_str("0.0.0.0")?,
        }
        write!(f, ":{}->{}/{}", self.host_port, self.container_port, self.protocol.as_str())
    }
}
