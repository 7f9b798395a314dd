//! A pod's network on the host: its namespace, and CNI's work in it. The shim carries what stands there over into the
//! guest; here it is made and taken away.

pub(crate) mod files;
pub(crate) mod flags;
pub(crate) mod plan;
pub(crate) mod survey;

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use husk_net::cni::{
    self, Attachment, Capability, Cni, CniError, Network, Networks, PluginError, PluginFailure, RuntimeConfig, Wants,
};
use husk_net::{IpNet, NetNs, NetNsError, RUN_NETNS};

use crate::error::Advise as _;
use crate::pods::directory::PodDir;
use crate::pods::record::PodRecord;
use plan::{BandwidthPlan, NetworkMode, NetworkPlan, PortMapping, Protocol};

/// The interface in the namespace and in the guest.
const INTERFACE: &str = "eth0";

/// Debian's package of CNI plugins.
const PLUGINS_PACKAGE: &str = "containernetworking-plugins";

/// A burst is what a limit lets pass in a tenth of a second,
const BURSTS_PER_SECOND: u64 = 10;
/// but one segment of 64 KiB at least, in bits, lest tc cut each of them up,
const LEAST_BURST: u64 = 64 * 1024 * 8;
/// and what the plugin's 32 bits hold at most.
const MOST_BURST: u64 = u32::MAX as u64;

/// The network namespace of a pod.
pub(crate) fn netns_path(pod: &str) -> PathBuf {
    Path::new(RUN_NETNS).join(netns_name(pod))
}

fn netns_name(pod: &str) -> String {
    format!("husk-{pod}")
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
    NetNs::create(Path::new(RUN_NETNS), &netns_name(&record.id)).await?;
    let begin = Instant::now();
    let added = match cni().add(&network, &attachment(&record)).await {
        Ok(added) => added,
        Err(CniError::Plugin(error @ PluginError { failure: PluginFailure::NotFound { .. }, .. })) => {
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

/// Takes a pod off its network and removes its namespace. Idempotent; never fails: what cannot be done now is what the
/// next removal finds.
///
/// One at a time, by a lock in `run`: a command and a supervisor may both end a pod, and of two DELs that overlap the
/// plugins may each leave something to the other.
pub(crate) async fn detach(run: &Path, pod: &str) {
    if !has_remains(pod) {
        return;
    }
    let _alone = lock(run.join("network.lock")).await;
    restore_namespace(pod).await;
    let cni = cni();
    match cni.attachments(Some(pod)) {
        Ok(attachments) => {
            for (network, attachment) in attachments.into_iter().flatten() {
                match cni.del(&network, &attachment).await {
                    Ok(deleted) => tracing::debug!("pod {pod}: left network {}: {deleted:?}", network.name()),
                    Err(error) => tracing::warn!("pod {pod}: it could not leave its network: {error}"),
                }
            }
        }
        Err(error) => tracing::warn!("pod {pod}: its networks are not known: {error}"),
    }
    if let Err(error) = NetNs::remove(&netns_path(pod)) {
        tracing::warn!("pod {pod}: {error}");
    }
}

/// A namespace for plugins to look for the pod's interface in, if its own has lost its name: without one the bridge
/// plugin leaves its masquerading rules. CNI puts an interface with the pod's addresses there.
async fn restore_namespace(pod: &str) {
    let path = netns_path(pod);
    if !matches!(NetNs::open(&path), Err(NetNsError::Missing { .. })) {
        return;
    }
    let restored = match NetNs::remove(&path) {
        Ok(()) => NetNs::create(Path::new(RUN_NETNS), &netns_name(pod)).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = restored {
        tracing::warn!("pod {pod}: rules of its network may remain on the host: {error}");
    }
}

/// Held until it is dropped. Without it the work is done all the same.
async fn lock(path: PathBuf) -> Option<File> {
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::create(path)?;
        file.lock()?;
        std::io::Result::Ok(file)
    });
    locked.await.ok()?.inspect_err(|error| tracing::warn!("the lock of networks: {error}")).ok()
}

/// Whether anything of a pod's network is there.
fn has_remains(pod: &str) -> bool {
    netns_path(pod).exists() || cni().attachments(Some(pod)).is_ok_and(|mut attachments| attachments.next().is_some())
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

fn attachment(record: &PodRecord) -> Attachment {
    let pairs = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", record.namespace.as_str()),
        ("K8S_POD_NAME", record.name.as_str()),
        ("K8S_POD_INFRA_CONTAINER_ID", record.id.as_str()),
        ("K8S_POD_UID", record.uid.as_str()),
    ];
    let plan = &record.network;
    Attachment {
        container_id: record.id.clone(),
        netns: Some(netns_path(&record.id)),
        ifname: INTERFACE.to_owned(),
        args: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        runtime: RuntimeConfig {
            port_mappings: plan.ports.iter().map(port_mapping).collect(),
            // Address management takes the address and knows the prefix.
            ips: plan.ips.iter().filter_map(|ip| IpNet::new(*ip, if ip.is_ipv4() { 32 } else { 128 }).ok()).collect(),
            mac: plan.mac.clone(),
            bandwidth: (!plan.bandwidth.is_none()).then(|| bandwidth(plan.bandwidth)),
            ..RuntimeConfig::default()
        },
    }
}

/// Rates with their bursts. Kubernetes' other runtimes ask for bursts of 4 Gbit, which leave the first half gigabyte of
/// a transfer unlimited.
fn bandwidth(plan: BandwidthPlan) -> cni::Bandwidth {
    let burst = |rate: Option<u64>| rate.map_or(0, |rate| (rate / BURSTS_PER_SECOND).clamp(LEAST_BURST, MOST_BURST));
    cni::Bandwidth {
        ingress_rate: plan.ingress.unwrap_or_default(),
        ingress_burst: burst(plan.ingress),
        egress_rate: plan.egress.unwrap_or_default(),
        egress_burst: burst(plan.egress),
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

    #[test]
    fn a_burst_is_a_tenth_of_a_second_within_bounds() {
        let bursts = |rate| bandwidth(BandwidthPlan { ingress: Some(rate), egress: None }).ingress_burst;
        assert_eq!([1_000, 100_000_000, 1 << 40].map(bursts), [524_288, 10_000_000, 4_294_967_295]);
        let open = bandwidth(BandwidthPlan { ingress: None, egress: Some(1_000) });
        assert_eq!((open.ingress_rate, open.ingress_burst), (0, 0));
    }
}
