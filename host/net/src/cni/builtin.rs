//! The network of machines whose administrator configured none: a bridge with masquerading.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::config::{ConfigError, Network};
use crate::ip::IpNet;

/// The bridge's name on the host.
pub const BRIDGE: &str = "husk0";

/// Addresses of the built-in network, chosen beside the defaults of others: 10.88.0.0/16 (podman), 172.16.0.0/12
/// (docker), 10.42.0.0/15 (k3s), 10.96.0.0/12 (Kubernetes services), 10.244.0.0/16 (flannel), 192.168.0.0/16.
pub const BRIDGE_SUBNET: &str = "10.119.0.0/16";

/// The network `husk`: the bridge [`BRIDGE`] with addresses of `subnet` ([`BRIDGE_SUBNET`] by default), masquerading
/// towards the world, published ports, and, where the plugin is installed, leave of the host's firewall to forward.
pub fn bridge_network(subnet: IpNet, plugin_dirs: &[PathBuf]) -> Result<Network, ConfigError> {
    let everywhere = if subnet.address().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let mut plugins: Vec<Value> = vec![
        json!({
            "type": "bridge",
            // What a person may ask for: an address (host-local takes it) and a MAC address.
            "capabilities": { "ips": true, "mac": true },
            "bridge": BRIDGE,
            "isGateway": true,
            "ipMasq": true,
            // A pod reaches its own published ports by the host's address.
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": subnet }]],
                "routes": [{ "dst": everywhere }],
            },
        }),
        json!({ "type": "portmap", "capabilities": { "portMappings": true } }),
    ];
    if plugin_dirs.iter().any(|dir| dir.join("firewall").is_file()) {
        plugins.push(json!({ "type": "firewall" }));
    }
    let list = json!({ "cniVersion": "1.0.0", "name": "husk", "plugins": plugins });
    Network::parse(list.to_string().as_bytes(), "of the built-in network")
}
