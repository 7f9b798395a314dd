//! A pod's network on the host: its namespace, and CNI's work in it. The shim carries what stands there over into the
//! guest; here it is made and taken away.

pub(crate) mod files;
pub(crate) mod flags;
pub(crate) mod plan;
pub(crate) mod survey;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use husk_net::cni::{
    self, Bandwidth, Capability, Cni, CniError, Network, Networks, PluginError, PluginFailure, RuntimeConfig, Wants,
};
use husk_net::{AttachError, IpNet, PodIdentity, PodNetwork};

use crate::error::Advise as _;
use crate::pods::directory::PodDir;
use plan::{NetworkMode, NetworkPlan, PortMapping, Protocol};

/// Debian's package of CNI plugins.
const PLUGINS_PACKAGE: &str = "containernetworking-plugins";

/// The network namespace of a pod.
pub(crate) fn netns_path(pod: &str) -> PathBuf {
    pod_network(Path::new("/"), pod).netns()
}

fn pod_network(run: &Path, pod: &str) -> PodNetwork {
    PodNetwork::new(cni(), pod, run)
}

/// Makes the pod's namespace and has its network's plugins furnish it. What a failure leaves, [`detach`] removes.
///
/// # Errors
///
/// When the network is unknown, lacks what was asked of it, or one of its plugins fails.
pub(crate) async fn attach(dir: &PodDir) -> anyhow::Result<()> {
    let record = dir.record()?;
    if record.network.is_none() {
        return Ok(());
    }
    let network = network(&record.network)?;
    check(&network, &record.network)?;
    if record.network.mode == NetworkMode::Bridge {
        cni::keep_router_advertisements().context("cannot keep the host's IPv6 routes while it forwards")?;
    }
    let identity = PodIdentity { namespace: &record.namespace, name: &record.name, uid: &record.uid };
    let begin = Instant::now();
    let attached = pod_network(Path::new("/"), &record.id).attach(&network, identity, runtime(&record.network)).await;
    let added = match attached {
        Ok(added) => added,
        Err(AttachError::Cni(CniError::Plugin(
            error @ PluginError { failure: PluginFailure::NotFound { .. }, .. },
        ))) => {
            return Err(error).hint(format!("install the package {PLUGINS_PACKAGE}, or use --network none"));
        }
        Err(error) => return Err(error.into()),
    };
    let took = begin.elapsed();
    dir.update(|record| {
        record.ips = added.ips.iter().map(|ip| ip.address.address()).collect();
        record.network_ms = Some(took.as_secs_f64() * 1000.0);
    })?;
    Ok(())
}

/// Takes a pod off its network and removes its namespace: [`PodNetwork::detach`].
pub(crate) async fn detach(run: &Path, pod: &str) {
    pod_network(run, pod).detach().await;
}

fn cni() -> Cni {
    Cni::new(directories("HUSK_CNI_BIN_DIRS", &cni::PLUGIN_DIRS), Path::new(cni::CACHE_DIR))
}

/// A colon-separated list of directories in an environment variable.
fn directories(variable: &str, default: &[&str]) -> Vec<PathBuf> {
    match env::var_os(variable).filter(|value| !value.is_empty()) {
        Some(value) => env::split_paths(&value).collect(),
        None => default.iter().map(PathBuf::from).collect(),
    }
}

fn network(plan: &NetworkPlan) -> anyhow::Result<Network> {
    match &plan.mode {
        NetworkMode::Named(name) => {
            let networks = Networks::load(&directories("HUSK_CNI_CONFIG_DIRS", &[cni::CONFIG_DIR]))?;
            Ok(networks.named(name)?)
        }
        NetworkMode::Bridge | NetworkMode::None => {
            let wants = Wants { ports: !plan.ports.is_empty(), bandwidth: !plan.bandwidth.is_none() };
            let plugins = directories("HUSK_CNI_BIN_DIRS", &cni::PLUGIN_DIRS);
            Ok(cni::bridge_network(&cni::bridge_subnets(), wants, &plugins)?)
        }
    }
}

/// What no plugin of the network would honour would be dropped silently.
fn check(network: &Network, plan: &NetworkPlan) -> anyhow::Result<()> {
    for (wanted, capability, what) in [
        (!plan.ports.is_empty(), Capability::PortMappings, "publish ports"),
        (!plan.ips.is_empty(), Capability::Ips, "take the address that was asked for"),
        (plan.mac.is_some(), Capability::Mac, "take the MAC address that was asked for"),
        (!plan.bandwidth.is_none(), Capability::Bandwidth, "limit bandwidth"),
    ] {
        if wanted && !network.declares(capability) {
            return Err(anyhow::anyhow!("network {} cannot {what}", network.name()))
                .hint(format!("none of its plugins declares the capability {}", capability.as_str()));
        }
    }
    Ok(())
}

fn runtime(plan: &NetworkPlan) -> RuntimeConfig {
    RuntimeConfig {
        port_mappings: plan.ports.iter().map(port_mapping).collect(),
        // Address management takes the address and knows the prefix.
        ips: plan.ips.iter().filter_map(|ip| IpNet::new(*ip, if ip.is_ipv4() { 32 } else { 128 }).ok()).collect(),
        mac: plan.mac.clone(),
        bandwidth: (!plan.bandwidth.is_none())
            .then(|| Bandwidth::limited(plan.bandwidth.ingress, plan.bandwidth.egress)),
        ..RuntimeConfig::default()
    }
}

fn port_mapping(port: &PortMapping) -> cni::PortMapping {
    cni::PortMapping {
        host_port: port.host_port,
        container_port: port.container_port,
        protocol: match port.protocol {
            Protocol::Tcp => cni::Protocol::Tcp,
            Protocol::Udp => cni::Protocol::Udp,
            Protocol::Sctp => cni::Protocol::Sctp,
        },
        host_ip: port.host_ip,
    }
}

#[cfg(test)]
mod tests {
    use super::plan::BandwidthPlan;
    use super::*;

    #[test]
    fn what_a_network_cannot_do_is_refused() {
        let text = br#"{"cniVersion":"1.0.0","name":"plain","plugins":[{"type":"bridge"}]}"#;
        let network = Network::parse(text, "of the test").unwrap();
        assert!(check(&network, &NetworkPlan::default()).is_ok());
        let plan = NetworkPlan { ips: vec!["10.0.0.1".parse().unwrap()], ..NetworkPlan::default() };
        let text = crate::error::report(&check(&network, &plan).unwrap_err());
        assert!(text.contains("network plain cannot take the address") && text.contains("ips"), "{text}");
    }

    #[test]
    fn the_built_in_network_can_do_everything() {
        let plan = NetworkPlan {
            mode: NetworkMode::Bridge,
            ips: vec!["10.119.0.9".parse().unwrap(), "fd68:7573:6b00::9".parse().unwrap()],
            mac: Some("02:00:00:00:00:01".to_owned()),
            ports: vec![flags::port("1:2").unwrap()],
            bandwidth: BandwidthPlan { ingress: Some(1_000_000), egress: None },
            ..NetworkPlan::default()
        };
        check(&network(&plan).unwrap(), &plan).unwrap();
    }
}
