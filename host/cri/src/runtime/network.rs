//! A pod's network: the node's CNI configuration, and what the pod asks of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use husk_net::cni::{self, Bandwidth, Capability, Cni, Network, Networks, PortMapping, Protocol, RuntimeConfig};
use husk_net::{PodIdentity, PodNetwork};

use super::Engine;
use crate::api;
use crate::error::Error;
use crate::state::Sandbox;

/// Annotations by which Kubernetes limits a pod's bandwidth.
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// What Kubernetes allows, in bits per second (k8s.io/kubernetes `pkg/util/bandwidth/utils.go`).
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

impl Engine {
    pub(crate) fn pod_network(&self, id: &str) -> PodNetwork {
        PodNetwork::new(self.cni(), id, &self.config.run)
    }

    fn cni(&self) -> Cni {
        Cni::new(self.config.cni_plugin_dirs.clone(), Path::new(cni::CACHE_DIR))
    }

    /// The node's network: the first of its configuration directory.
    fn network(&self) -> Result<Network, Error> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::FailedPrecondition(format!("the node's network is not configured: {error}"))
        };
        let networks = Networks::load(std::slice::from_ref(&self.config.cni_config_dir)).map_err(|e| failed(&e))?;
        networks.first().map_err(|error| failed(&error))
    }

    /// Why pods could get no network now; `None`: they can.
    pub(crate) async fn network_problem(&self) -> Option<String> {
        let network = match self.network() {
            Ok(network) => network,
            Err(error) => return Some(error.to_string()),
        };
        self.cni().ready(&network).await.err().map(|error| error.to_string())
    }

    /// Puts the pod on the node's network; answers its addresses. What a failure leaves, the pod's removal removes.
    pub(crate) async fn attach(&self, sandbox: &Sandbox) -> Result<Vec<IpAddr>, Error> {
        let network = self.network()?;
        let runtime = runtime_config(&sandbox.config)?;
        for (wanted, capability, what) in [
            (!runtime.port_mappings.is_empty(), Capability::PortMappings, "publish ports"),
            (runtime.bandwidth.is_some(), Capability::Bandwidth, "limit bandwidth"),
        ] {
            if wanted && !network.declares(capability) {
                let (name, capability) = (network.name(), capability.as_str());
                let text = format!("network {name} cannot {what}: none of its plugins has the capability {capability}");
                return Err(Error::FailedPrecondition(text));
            }
        }
        let metadata = sandbox.metadata();
        let pod = PodIdentity { namespace: &metadata.namespace, name: &metadata.name, uid: &metadata.uid };
        let added = self.pod_network(&sandbox.id).attach(&network, pod, runtime).await?;
        Ok(added.ips.iter().map(|ip| ip.address.address()).collect())
    }
}

/// What the pod asks of the network.
fn runtime_config(config: &api::PodSandboxConfig) -> Result<RuntimeConfig, Error> {
    let mut ports = Vec::with_capacity(config.port_mappings.len());
    for mapping in &config.port_mappings {
        // Without a port of the node there is nothing to publish.
        if mapping.host_port != 0 {
            ports.push(port(mapping)?);
        }
    }
    let dns = config.dns_config.clone().unwrap_or_default();
    let dns = cni::Dns { servers: dns.servers, domain: None, searches: dns.searches, options: dns.options };
    Ok(RuntimeConfig {
        port_mappings: ports,
        bandwidth: bandwidth(&config.annotations)?,
        dns: (dns != cni::Dns::default()).then_some(dns),
        ..RuntimeConfig::default()
    })
}

fn port(mapping: &api::PortMapping) -> Result<PortMapping, Error> {
    let refused = |why: &str| {
        let api::PortMapping { host_port, container_port, .. } = mapping;
        Error::InvalidArgument(format!("port mapping {host_port}:{container_port}: {why}"))
    };
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port != 0);
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(text.parse::<IpAddr>().map_err(|_| refused("host_ip is no address"))?),
    };
    Ok(PortMapping {
        host_port: number(mapping.host_port).ok_or_else(|| refused("ports are from 1 to 65535"))?,
        container_port: number(mapping.container_port).ok_or_else(|| refused("ports are from 1 to 65535"))?,
        protocol: match api::Protocol::try_from(mapping.protocol) {
            Ok(api::Protocol::Tcp) => Protocol::Tcp,
            Ok(api::Protocol::Udp) => Protocol::Udp,
            Ok(api::Protocol::Sctp) => Protocol::Sctp,
            Err(_) => return Err(refused("there is no such protocol")),
        },
        // "Every address" is said by none.
        host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
    })
}

fn bandwidth(annotations: &HashMap<String, String>) -> Result<Option<Bandwidth>, Error> {
    let rate = |name: &str| annotations.get(name).map(|text| quantity(name, text)).transpose();
    let (ingress, egress) = (rate(INGRESS)?, rate(EGRESS)?);
    Ok((ingress.is_some() || egress.is_some()).then(|| Bandwidth::limited(ingress, egress)))
}

/// A rate in bits per second, as a quantity of Kubernetes: `10M`.
fn quantity(name: &str, text: &str) -> Result<u64, Error> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let unit: Option<u64> = match suffix {
        "" => Some(1),
        "k" => Some(1_000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        "T" => Some(1_000_000_000_000),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        "Ti" => Some(1 << 40),
        _ => None,
    };
    let rate = unit.zip(digits.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    rate.filter(|rate| RATES.contains(rate)).ok_or_else(|| {
        Error::InvalidArgument(format!("annotation {name} = {text:?}: a rate is from 1k to 1P, such as 10M"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_without_a_port_of_the_node_publishes_nothing() {
        let mapping = |host_port| api::PortMapping { container_port: 80, host_port, ..api::PortMapping::default() };
        let config = api::PodSandboxConfig {
            port_mappings: vec![mapping(0), mapping(12001)],
            ..api::PodSandboxConfig::default()
        };
        let ports = runtime_config(&config).unwrap().port_mappings;
        assert_eq!(ports.iter().map(|port| port.host_port).collect::<Vec<_>>(), [12001]);
        for bad in [-1, 70_000] {
            let config =
                api::PodSandboxConfig { port_mappings: vec![mapping(bad)], ..api::PodSandboxConfig::default() };
            assert!(runtime_config(&config).is_err());
        }
    }

    #[test]
    fn rates_are_quantities() {
        let rate = |text: &str| quantity(INGRESS, text).ok();
        assert_eq!([rate("10M"), rate("1Gi"), rate("1000")], [Some(10_000_000), Some(1 << 30), Some(1000)]);
        for bad in ["", "M", "1x", "-1M", "999", "99999999999999999999"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }
}
