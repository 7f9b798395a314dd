//! The fields of a Pod that say how it is reached and what it calls others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use husk_spec::resolv::ResolvConf;
use k8s_openapi::api::core::v1::{ContainerPort, PodDNSConfig, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::convert::Problems;
use crate::network::plan::{BandwidthPlan, NetworkPlan, PortMapping, Protocol};

/// What the manifest says of the pod's network. In which one it is, no manifest says.
pub(super) fn network(metadata: &ObjectMeta, spec: &PodSpec, problems: &mut Problems) -> NetworkPlan {
    NetworkPlan {
        ports: ports(spec, problems),
        bandwidth: bandwidth(metadata, problems),
        dns: dns(spec, problems),
        hosts: hosts(spec, problems),
        ..NetworkPlan::default()
    }
}

/// The annotations by which Kubernetes limits a pod's bandwidth.
fn bandwidth(metadata: &ObjectMeta, problems: &mut Problems) -> BandwidthPlan {
    let mut rate = |direction: &str| {
        let key = format!("kubernetes.io/{direction}-bandwidth");
        let rate = BandwidthPlan::rate(metadata.annotations.as_ref()?.get(&key)?);
        rate.map_err(|error| problems.add(&format!("metadata.annotations['{key}']"), error)).ok()
    };
    BandwidthPlan { ingress: rate("ingress"), egress: rate("egress") }
}

fn ports(spec: &PodSpec, problems: &mut Problems) -> Vec<PortMapping> {
    let mut mappings = Vec::new();
    let mut taken = BTreeSet::new();
    for (list, containers) in
        [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)]
    {
        for (number, container) in containers.iter().enumerate() {
            for (index, port) in container.ports.iter().flatten().enumerate() {
                let path = format!("spec.{list}[{number}].ports[{index}]");
                let Some(mapping) = mapping(port, &path, problems) else { continue };
                if !taken.insert((mapping.host_ip, mapping.host_port, mapping.protocol.as_str())) {
                    problems.add(&format!("{path}.hostPort"), format!("{} is taken twice", mapping.host_port));
                }
                mappings.push(mapping);
            }
        }
    }
    mappings
}

/// 0, like an absent one, publishes nothing.
fn mapping(port: &ContainerPort, path: &str, problems: &mut Problems) -> Option<PortMapping> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        Some(other) => {
            problems.add(&format!("{path}.protocol"), format!("\"{other}\" is none of TCP, UDP, SCTP"));
            return None;
        }
    };
    let mut number = |name: &str, value: i32| {
        let port = u16::try_from(value).ok().filter(|port| *port > 0);
        if port.is_none() {
            problems.add(&format!("{path}.{name}"), format!("{value} is not within 1 to 65535"));
        }
        port
    };
    let container_port = number("containerPort", port.container_port)?;
    let host_port = match port.host_port {
        None | Some(0) => return None,
        Some(value) => number("hostPort", value)?,
    };
    let host_ip = match port.host_ip.as_deref() {
        None | Some("" | "0.0.0.0") => None,
        Some(text) => Some(address(text, &format!("{path}.hostIP"), problems)?),
    };
    let mapping = PortMapping { host_ip, host_port, container_port, protocol };
    if let Err(error) = mapping.check() {
        problems.add(&format!("{path}.hostIP"), error);
    }
    Some(mapping)
}

fn address(text: &str, path: &str, problems: &mut Problems) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        problems.add(path, format!("\"{text}\" is no IP address"));
    }
    parsed
}

fn dns(spec: &PodSpec, problems: &mut Problems) -> ResolvConf {
    let none = PodDNSConfig::default();
    let config = spec.dns_config.as_ref().unwrap_or(&none);
    let mut plan = ResolvConf::default();
    for (index, server) in config.nameservers.iter().flatten().enumerate() {
        plan.servers.extend(address(server, &format!("spec.dnsConfig.nameservers[{index}]"), problems));
    }
    plan.searches = config.searches.clone().unwrap_or_default();
    plan.options = config
        .options
        .iter()
        .flatten()
        .map(|option| match (option.name.as_deref().unwrap_or_default(), option.value.as_deref()) {
            (name, Some(value)) => format!("{name}:{value}"),
            (name, None) => name.to_owned(),
        })
        .collect();
    for (field, words) in [("searches", &plan.searches), ("options", &plan.options)] {
        if words.iter().any(|word| word.is_empty() || !word.bytes().all(|b| b.is_ascii_graphic())) {
            problems.add(&format!("spec.dnsConfig.{field}"), "each entry is one word");
        }
    }
    match spec.dns_policy.as_deref() {
        // There is no cluster: its name server is the host's.
        None | Some("ClusterFirst" | "Default" | "ClusterFirstWithHostNet") => {}
        Some("None") if plan.servers.is_empty() => {
            problems.add("spec.dnsConfig.nameservers", "dnsPolicy None needs at least one");
        }
        Some("None") => {}
        Some(other) => problems.add("spec.dnsPolicy", format!("\"{other}\" is none of ClusterFirst, Default, None")),
    }
    plan
}

fn hosts(spec: &PodSpec, problems: &mut Problems) -> Vec<(IpAddr, String)> {
    let mut lines = Vec::new();
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = format!("spec.hostAliases[{index}]");
        let Some(ip) = address(&alias.ip, &format!("{path}.ip"), problems) else { continue };
        for name in alias.hostnames.iter().flatten() {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
                problems.add(&format!("{path}.hostnames"), format!("\"{name}\" is no host name"));
                continue;
            }
            lines.push((ip, name.clone()));
        }
    }
    lines
}
