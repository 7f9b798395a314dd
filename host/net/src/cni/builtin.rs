//! The network of machines whose administrator configured none: a bridge with masquerading.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::config::{ConfigError, Network};
use crate::ip::IpNet;

/// The bridge's name on the host.
pub const BRIDGE: &str = "husk0";

/// IPv4 addresses of the built-in network, chosen beside the defaults of others: 10.88.0.0/16 (podman), 172.16.0.0/12
/// (docker), 10.42.0.0/15 (k3s), 10.96.0.0/12 (Kubernetes services), 10.244.0.0/16 (flannel), 192.168.0.0/16.
pub const BRIDGE_SUBNET: &str = "10.119.0.0/16";

/// IPv6 addresses of the built-in network: unique local ones (RFC 4193) whose global id is "husk" in ASCII. One for
/// all machines, like the IPv4 network: both stay behind masquerading.
pub const BRIDGE_SUBNET_6: &str = "fd68:7573:6b00::/64";

/// Plugins that the built-in network may call, [`bridge_network`] says when; `host-local` is called by `bridge`.
pub const BRIDGE_PLUGINS: [&str; 5] = ["bridge", "host-local", "portmap", "bandwidth", "firewall"];

/// What a pod wants of the built-in network besides an address. Each costs the run of one more plugin, and the
/// bandwidth plugin (1.1.1) crashes in CHECK where no limit was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub ports: bool,
    pub bandwidth: bool,
}

/// The network `husk`: the bridge [`BRIDGE`] with an address of each subnet, masquerading towards the world, what the
/// pod wants besides, and, where the plugin is installed, leave of the host's firewall to forward.
pub fn bridge_network(subnets: &[IpNet], wants: Wants, plugin_dirs: &[PathBuf]) -> Result<Network, ConfigError> {
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
    let everywhere = |subnet: &IpNet| if subnet.address().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let routes: Vec<Value> = subnets.iter().map(|subnet| json!({ "dst": everywhere(subnet) })).collect();
    let mut plugins: Vec<Value> = vec![json!({
        "type": "bridge",
        // What a person may ask for: an address (host-local takes it) and a MAC address.
        "capabilities": { "ips": true, "mac": true },
        "bridge": BRIDGE,
        "isGateway": true,
        "ipMasq": true,
        // A pod reaches its own published ports by the host's address.
        "hairpinMode": true,
        "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
    })];
    if wants.ports {
        plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
    }
    if wants.bandwidth {
        plugins.push(json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }));
    }
    if plugin_dirs.iter().any(|dir| dir.join("firewall").is_file()) {
        plugins.push(json!({ "type": "firewall" }));
    }
    let list = json!({ "cniVersion": "1.0.0", "name": "husk", "plugins": plugins });
    Network::parse(list.to_string().as_bytes(), "of the built-in network")
}

/// The subnets of the built-in network on this host: IPv6 only where the host has it.
#[must_use]
pub fn bridge_subnets() -> Vec<IpNet> {
    let ipv6 = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|text| text.trim() == "0");
    let subnets = [Some(BRIDGE_SUBNET), ipv6.then_some(BRIDGE_SUBNET_6)];
    subnets.into_iter().flatten().filter_map(|subnet| subnet.parse().ok()).collect()
}

/// Lets the host keep what it learns from IPv6 router advertisements.
///
/// The bridge plugin turns forwarding on, and an interface that forwards heeds no advertisement unless its `accept_ra`
/// is 2 (Documentation/networking/ip-sysctl.rst): a host with an address by such would lose it some minutes later. As
/// long as nothing is forwarded 2 means the same as 1. The bridge itself must heed none: guests are behind it.
pub fn keep_router_advertisements() -> io::Result<()> {
    let entries = match fs::read_dir("/proc/sys/net/ipv6/conf") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let is = |sysctl: &str, value: &str| fs::read_to_string(path.join(sysctl)).is_ok_and(|t| t.trim() == value);
        let special = ["all", "default", "lo", BRIDGE].iter().any(|name| entry.file_name() == *name);
        if !special && is("forwarding", "0") && is("accept_ra", "1") {
            match fs::write(path.join("accept_ra"), "2") {
                // The interface went meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::Capability;

    fn network(wants: Wants) -> Network {
        let subnets = [BRIDGE_SUBNET, BRIDGE_SUBNET_6].map(|subnet| subnet.parse().unwrap());
        bridge_network(&subnets, wants, &["/nonexistent".into()]).unwrap()
    }

    #[test]
    fn a_pod_that_wants_nothing_but_an_address_costs_one_plugin() {
        assert_eq!(network(Wants::default()).plugins().collect::<Vec<_>>(), ["bridge"]);
        let all = network(Wants { ports: true, bandwidth: true });
        assert_eq!(all.plugins().collect::<Vec<_>>(), ["bridge", "portmap", "bandwidth"]);
        for capability in [Capability::PortMappings, Capability::Bandwidth, Capability::Ips, Capability::Mac] {
            assert!(all.declares(capability), "{capability:?}");
        }
    }
}
