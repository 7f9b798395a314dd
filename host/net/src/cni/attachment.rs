//! One container's attachment to a network, and what the runtime passes to plugins that ask for it.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::is_name;
use crate::ip::IpNet;

/// An attachment is known by its network, container and interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub container_id: String,
    /// May be `None`, or gone, for DEL only.
    pub netns: Option<PathBuf>,
    /// The interface to be made in the namespace: `eth0`.
    pub ifname: String,
    /// `CNI_ARGS`, such as `K8S_POD_NAME`. Start with `IgnoreUnknown=1`, else plugins refuse keys they do not know.
    pub args: Vec<(String, String)>,
    pub runtime: RuntimeConfig,
}

#[derive(Debug, thiserror::Error)]
pub enum BadAttachment {
    #[error("container id {id:?} is not letters, digits, dots, underscores and hyphens, first a letter or digit")]
    ContainerId { id: String },
    #[error("{name:?} cannot name an interface: 1 to 15 bytes without spaces, colons, slashes and percent signs")]
    Ifname { name: String },
    #[error("the CNI argument {key:?} has an empty key, or a semicolon or equals sign where none may be")]
    Arg { key: String },
    #[error("container {container_id} has no network namespace to attach")]
    NoNetNs { container_id: String },
}

/// The conventional `runtimeConfig`: each part goes to the plugins that declare its [`Capability`], and to no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeConfig {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Addresses that the container shall have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpNet>,
    /// The MAC address that the interface shall have: `02:11:22:33:44:55`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// Names of the parts of [`RuntimeConfig`] in a plugin's `capabilities`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    PortMappings,
    Bandwidth,
    Dns,
    Ips,
    Mac,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
    /// `None`: every address of the host.
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// Rates in bits per second, bursts in bits; 0 is no limit. Ingress is towards the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    pub ingress_rate: u64,
    pub ingress_burst: u64,
    pub egress_rate: u64,
    pub egress_burst: u64,
}

/// Name resolution, towards plugins. Results have the same with `nameservers` for `servers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    #[serde(alias = "nameservers", skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(alias = "search", skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Capability {
    pub(crate) const ALL: [Self; 5] = [Self::PortMappings, Self::Bandwidth, Self::Dns, Self::Ips, Self::Mac];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PortMappings => "portMappings",
            Self::Bandwidth => "bandwidth",
            Self::Dns => "dns",
            Self::Ips => "ips",
            Self::Mac => "mac",
        }
    }
}

impl RuntimeConfig {
    /// What is asked of plugins that declare `capability`.
    pub(crate) fn part(&self, capability: Capability) -> Option<Value> {
        let all = serde_json::to_value(self).ok()?;
        all.get(capability.as_str()).cloned()
    }
}

impl Attachment {
    /// Everything of it goes into environment variables and file names.
    pub(crate) fn check(&self) -> Result<(), BadAttachment> {
        if !is_name(&self.container_id) {
            return Err(BadAttachment::ContainerId { id: self.container_id.chars().take(128).collect() });
        }
        if crate::link::check_name(&self.ifname).is_err() {
            return Err(BadAttachment::Ifname { name: self.ifname.chars().take(64).collect() });
        }
        let bad = |(key, value): &&(String, String)| {
            key.is_empty() || key.contains([';', '=', '\0']) || value.contains([';', '\0'])
        };
        match self.args.iter().find(bad) {
            Some((key, _)) => Err(BadAttachment::Arg { key: key.clone() }),
            None => Ok(()),
        }
    }

    /// As `CNI_ARGS` has it.
    pub(crate) fn args(&self) -> String {
        self.args.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";")
    }
}
