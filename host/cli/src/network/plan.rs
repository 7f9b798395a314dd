//! How a pod is reached, as the user said it.

use std::net::IpAddr;

use husk_spec::resolv::ResolvConf;
use serde::{Deserialize, Serialize};

use crate::kube::quantity;

/// A pod's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkPlan {
    pub(crate) mode: NetworkMode,
    pub(crate) ports: Vec<PortMapping>,
    /// Asked of the network's address management, at most one of a family.
    pub(crate) ips: Vec<IpAddr>,
    /// `02:00:00:00:00:01`.
    pub(crate) mac: Option<String>,
    #[serde(default)]
    pub(crate) bandwidth: BandwidthPlan,
    pub(crate) dns: ResolvConf,
    /// Further lines of /etc/hosts.
    pub(crate) hosts: Vec<(IpAddr, String)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NetworkMode {
    /// The built-in bridge.
    #[default]
    Bridge,
    /// A network of /etc/cni/net.d.
    Named(String),
    /// Only the pod's own loopback.
    None,
}

/// Limits in bits per second; absent: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BandwidthPlan {
    /// Towards the pod.
    pub(crate) ingress: Option<u64>,
    pub(crate) egress: Option<u64>,
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

impl NetworkPlan {
    /// Only the pod's own loopback.
    pub(crate) fn is_none(&self) -> bool {
        self.mode == NetworkMode::None
    }
}

impl NetworkPlan {
    /// Something of it that only a pod with an interface can have.
    pub(crate) fn needs_interface(&self) -> Option<&'static str> {
        let needs = [
            ("published ports", !self.ports.is_empty()),
            ("an address", !self.ips.is_empty()),
            ("a MAC address", self.mac.is_some()),
            ("a limit of bandwidth", !self.bandwidth.is_none()),
        ];
        needs.into_iter().find_map(|(what, needed)| needed.then_some(what))
    }
}

impl BandwidthPlan {
    /// What Kubernetes allows (k8s.io/kubernetes `pkg/util/bandwidth/utils.go`).
    const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

    /// A rate in bits per second, written as a quantity: `10M`.
    pub(crate) fn rate(text: &str) -> Result<u64, String> {
        let rate = quantity::bytes(text).map_err(|error| error.to_string())?;
        if Self::RATES.contains(&rate) {
            Ok(rate)
        } else {
            Err(format!("{text} is not within 1k and 1P bits per second"))
        }
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
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

/// A port that no plugin can publish.
#[derive(Debug, thiserror::Error)]
#[error("Linux routes nothing from ::1 to a pod; publish the port on 127.0.0.1 or on another address of the host")]
pub(crate) struct Ipv6Loopback;

impl PortMapping {
    /// `route_localnet` has no counterpart for IPv6.
    pub(crate) fn check(&self) -> Result<(), Ipv6Loopback> {
        let loopback = self.host_ip.is_some_and(|ip| ip.is_ipv6() && ip.is_loopback());
        if loopback { Err(Ipv6Loopback) } else { Ok(()) }
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
