//! The network flags of `husk run`, as podman has them.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, ensure};
use husk_spec::resolv::ResolvConf;

use super::plan::{BandwidthPlan, NetworkMode, NetworkPlan, PortMapping, Protocol};
use crate::error::Advise as _;

/// The network of pods for which none is named; `bridge` where it is not set.
const DEFAULT: &str = "HUSK_NETWORK";

/// `--network` and its kin; they belong to the pod.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NetworkArgs {
    /// Network of the new pod: bridge, none, or the name of one in /etc/cni/net.d [default: HUSK_NETWORK, else bridge]
    #[arg(long, visible_alias = "net", value_name = "NAME")]
    network: Option<String>,
    /// Lead a port of the host to one of the container
    #[arg(short, long, value_name = "[IP:]HOST:CONTAINER[/udp]")]
    publish: Vec<String>,
    /// Name server [default: the host's]
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Domain in which names are looked up [default: the host's]
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of /etc/resolv.conf, such as ndots:2
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<String>,
    /// IPv4 address of the new pod
    #[arg(long, value_name = "IPV4")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address of the new pod
    #[arg(long, value_name = "IPV6")]
    ip6: Option<Ipv6Addr>,
    /// Ethernet address of the new pod
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,
    /// Limit of what the new pod receives, in bits per second, e.g. 10M
    #[arg(long, value_name = "RATE", value_parser = BandwidthPlan::rate)]
    ingress_bandwidth: Option<u64>,
    /// Limit of what the new pod sends, in bits per second
    #[arg(long, value_name = "RATE", value_parser = BandwidthPlan::rate)]
    egress_bandwidth: Option<u64>,
}

impl NetworkArgs {
    /// The first flag that was given, for a pod that has its network already.
    pub(crate) fn given(&self) -> Option<&'static str> {
        self.flags().next()
    }

    /// All that were given.
    fn flags(&self) -> impl Iterator<Item = &'static str> {
        let flags = [
            ("--network", self.network.is_some()),
            ("-p", !self.publish.is_empty()),
            ("--dns", !self.dns.is_empty()),
            ("--dns-search", !self.dns_search.is_empty()),
            ("--dns-option", !self.dns_option.is_empty()),
            ("--add-host", !self.add_host.is_empty()),
            ("--ip", self.ip.is_some()),
            ("--ip6", self.ip6.is_some()),
            ("--mac-address", self.mac_address.is_some()),
            ("--ingress-bandwidth", self.ingress_bandwidth.is_some()),
            ("--egress-bandwidth", self.egress_bandwidth.is_some()),
        ];
        flags.into_iter().filter_map(|(name, given)| given.then_some(name))
    }

    pub(crate) fn plan(&self) -> anyhow::Result<NetworkPlan> {
        let mut plan = NetworkPlan {
            ports: self.publish.iter().map(|text| port(text)).collect::<anyhow::Result<_>>()?,
            ips: self.ip.map(IpAddr::from).into_iter().chain(self.ip6.map(IpAddr::from)).collect(),
            mac: self.mac_address.as_deref().map(mac).transpose()?,
            bandwidth: BandwidthPlan { ingress: self.ingress_bandwidth, egress: self.egress_bandwidth },
            dns: ResolvConf {
                servers: self.dns.clone(),
                searches: words("--dns-search", &self.dns_search)?,
                options: words("--dns-option", &self.dns_option)?,
            },
            hosts: self.add_host.iter().map(|text| host(text)).collect::<anyhow::Result<_>>()?,
            ..NetworkPlan::default()
        };
        choose(&mut plan, self.network.as_deref())?;
        Ok(plan)
    }
}

/// The network that was asked for, else the default of the environment, else the built-in bridge.
///
/// # Errors
///
/// For a name that is none, and for a pod that shall be reached without a network. The environment's `none` is no
/// reason to refuse such a pod: it gets the built-in bridge.
pub(crate) fn choose(plan: &mut NetworkPlan, asked: Option<&str>) -> anyhow::Result<()> {
    let default = env::var(DEFAULT).ok().filter(|name| !name.is_empty());
    plan.mode = match (asked, default) {
        (Some(name), _) => mode(name)?,
        (None, Some(name)) => mode(&name).context(DEFAULT)?,
        (None, None) => NetworkMode::Bridge,
    };
    match plan.needs_interface() {
        Some(what) if plan.is_none() && asked.is_some() => {
            Err(anyhow::anyhow!("--network none: nothing leads to the pod, and so it cannot have {what}"))
                .hint("leave one of the two away")
        }
        Some(_) if plan.is_none() => {
            plan.mode = NetworkMode::Bridge;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn mode(text: &str) -> anyhow::Result<NetworkMode> {
    Ok(match text {
        "bridge" => NetworkMode::Bridge,
        "none" => NetworkMode::None,
        "host" => {
            return Err(anyhow::anyhow!("--network host: a VM cannot share the host's network"))
                .hint("publish the ports that are needed with -p");
        }
        other if other.starts_with("container:") || other.starts_with("ns:") => {
            return Err(anyhow::anyhow!("--network {other}: containers share a network by sharing a pod"))
                .hint("use --pod");
        }
        name => {
            let good = name.len() <= 63
                && name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
            ensure!(good, "--network {name}: it is no network's name");
            NetworkMode::Named(name.to_owned())
        }
    })
}

/// `8080:80`, `127.0.0.1:8080:80/tcp`, `[fd00::1]:53:53/udp`.
pub(crate) fn port(text: &str) -> anyhow::Result<PortMapping> {
    let bad = || format!("-p {text}: expected [IP:]HOST:CONTAINER[/tcp|/udp|/sctp], as in 8080:80");
    let (ports, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((ports, "sctp")) => (ports, Protocol::Sctp),
        Some(_) => return Err(anyhow::anyhow!(bad())),
    };
    let (host, container) = ports.rsplit_once(':').with_context(bad)?;
    let (ip, host) = match host.rsplit_once(':') {
        None => (None, host),
        Some((ip, host)) => {
            let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
            (Some(ip.parse().ok().with_context(bad)?), host)
        }
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).with_context(bad);
    let mapping = PortMapping { host_ip: ip, host_port: number(host)?, container_port: number(container)?, protocol };
    mapping.check().with_context(|| format!("-p {text}"))?;
    Ok(mapping)
}

/// `name:10.0.0.1`.
fn host(text: &str) -> anyhow::Result<(IpAddr, String)> {
    let bad = || format!("--add-host {text}: expected NAME:IP, as in db:10.0.0.5");
    let (name, ip) = text.split_once(':').with_context(bad)?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    ensure!(!name.is_empty() && name.len() <= 253 && name.bytes().all(legal), bad());
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    Ok((ip.parse().ok().with_context(bad)?, name.to_owned()))
}

/// A unicast address, in lower case.
fn mac(text: &str) -> anyhow::Result<String> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2)).collect();
    let first = bytes.filter(|bytes| bytes.len() == 6).and_then(|bytes| bytes.first().copied());
    let unicast = first.is_some_and(|first| first & 1 == 0);
    ensure!(unicast, "--mac-address {text}: expected a unicast Ethernet address such as 02:00:00:00:00:01");
    Ok(text.to_ascii_lowercase())
}

/// Words of a resolv.conf line.
fn words(flag: &str, texts: &[String]) -> anyhow::Result<Vec<String>> {
    for text in texts {
        let good = !text.is_empty() && text.len() <= 253 && text.bytes().all(|b| b.is_ascii_graphic());
        ensure!(good, "{flag} {text:?}: expected one word");
    }
    Ok(texts.to_vec())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        network: NetworkArgs,
    }

    fn plan(flags: &str) -> anyhow::Result<NetworkPlan> {
        Line::try_parse_from(["x"].into_iter().chain(flags.split_whitespace()))?.network.plan()
    }

    #[test]
    fn ports_are_written_as_podman_writes_them() {
        let shown = |text: &str| port(text).unwrap().to_string();
        assert_eq!(shown("8080:80"), "0.0.0.0:8080->80/tcp");
        assert_eq!(shown("127.0.0.1:53:5353/udp"), "127.0.0.1:53->5353/udp");
        assert_eq!(shown("[fd00::1]:1:2"), "[fd00::1]:1->2/tcp");
        assert!(format!("{:#}", port("[::1]:1:2").unwrap_err()).contains("nothing from ::1"));
        for bad in ["80", "0:80", "80:0", "80:65536", "x:80", "1:2:3", "8080:80/icmp", "", ":80", "8080:"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_become_a_plan() {
        let plan = plan(
            "--network blue -p 1:2 --dns 10.0.0.2 --dns-search a.b --dns-option ndots:2 --add-host db:10.0.0.5 \
             --ip 10.88.0.9 --ip6 fd00::9 --mac-address 02:AA:00:00:00:01 --egress-bandwidth 10M",
        )
        .unwrap();
        assert_eq!(plan.mode, NetworkMode::Named("blue".to_owned()));
        assert_eq!(plan.mac.as_deref(), Some("02:aa:00:00:00:01"));
        assert_eq!(plan.hosts, [("10.0.0.5".parse().unwrap(), "db".to_owned())]);
        assert_eq!(plan.dns.options, ["ndots:2"]);
        assert_eq!(plan.ips, ["10.88.0.9", "fd00::9"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(plan.bandwidth, BandwidthPlan { ingress: None, egress: Some(10_000_000) });
    }

    #[test]
    fn a_pod_has_the_built_in_network_unless_it_is_told_otherwise() {
        assert_eq!(plan("").unwrap().mode, NetworkMode::Bridge);
        assert_eq!(plan("--network none").unwrap().mode, NetworkMode::None);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for flags in [
            "--network host",
            "--network container:x",
            "--network ../x",
            "--network none -p 1:2",
            "--network none --ingress-bandwidth 1M",
            "--ingress-bandwidth 1",
            "--ip fd00::1",
            "--add-host db",
            "--add-host d/b:10.0.0.1",
            "--mac-address 01:00:00:00:00:01",
            "--mac-address 02:00",
            "--ip 10.0.0",
        ] {
            assert!(plan(flags).is_err(), "{flags}");
        }
    }

    #[test]
    fn a_given_flag_is_named() {
        let given = |flags: &str| {
            Line::try_parse_from(["x"].into_iter().chain(flags.split_whitespace())).unwrap().network.given()
        };
        assert_eq!(given(""), None);
        assert_eq!(given("--dns 1.1.1.1"), Some("--dns"));
    }
}
