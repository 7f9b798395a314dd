//! The pod's network: what stands in a network namespace of the host, carried over into the guest.
//!
//! Whoever made the namespace (containerd, `husk`) has had CNI furnish it. Each Ethernet interface there gets a tap,
//! joined to it below the namespace's own stack; the guest's interface has the same name, MAC, addresses and routes.
//! The tap lives as long as the VMM holds it. The join is undone with the namespace.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use husk_agent_api::v1;
use husk_net::NetNs;
use husk_net::link::{self, Interface, LinkError, Scope};
use husk_vmm_control::{Device, SlotIndex};

use crate::agent::{Agent, AgentError};
use crate::devices::{PlugError, plug};
use crate::vmm::{Vmm, VmmError};

/// The interface that CNI makes by convention.
const INTERFACE: &str = "eth0";
/// Its tap, in the same namespace.
const TAP: &str = "husk-eth0";

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error(transparent)]
    Host(#[from] LinkError),
    #[error("cannot give the guest its network interface: {0}")]
    Vmm(#[from] VmmError),
    #[error("the guest did not take its network interface: {0}")]
    Guest(#[from] AgentError),
}

/// An interface and the tap that is joined to it.
#[derive(Debug)]
pub(crate) struct Network {
    interface: Interface,
    tap: OwnedFd,
}

impl Network {
    /// Reads the interface of a namespace and joins a tap to it.
    pub(crate) async fn open(netns: &Path) -> Result<Self, NetworkError> {
        let netns = NetNs::open(netns).map_err(LinkError::from)?;
        let interface = Interface::read(&netns, INTERFACE).await?;
        // Left by a start that was cut off; a tap that somebody holds makes the next step fail.
        link::separate(&netns, INTERFACE, TAP).await?;
        let tap = link::create_tap(&netns, TAP, interface.mtu).await?;
        link::join(&netns, INTERFACE, TAP).await?;
        Ok(Self { interface, tap })
    }

    /// Its addresses that others can know it by.
    pub(crate) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.interface.addresses.iter().filter(|address| address.scope == Scope::Universe).map(|a| a.net.address())
    }

    /// Plugs the interface into the VM and has the guest set it up.
    pub(crate) async fn plug(self, vmm: &Vmm, agent: &Agent) -> Result<SlotIndex, NetworkError> {
        let mtu = u16::try_from(self.interface.mtu).ok();
        let device = Device::Net { mac: self.interface.mac, mtu };
        let (slot, _) = plug(vmm, agent, device, &[self.tap.as_fd()]).await.map_err(|error| match error {
            PlugError::Vmm(source) => NetworkError::Vmm(source),
            PlugError::Guest(source) => NetworkError::Guest(source),
        })?;
        agent.configure_interface(request(slot, &self.interface)).await?;
        Ok(slot)
    }
}

fn request(slot: SlotIndex, interface: &Interface) -> v1::ConfigureInterfaceRequest {
    v1::ConfigureInterfaceRequest {
        slot: slot.0,
        name: interface.name.clone(),
        mtu: interface.mtu,
        addresses: interface
            .addresses
            .iter()
            // The guest makes its own link-local addresses.
            .filter(|address| address.scope != Scope::Link)
            .map(|a| v1::Address { ip: octets(a.net.address()), prefix_length: u32::from(a.net.prefix()) })
            .collect(),
        routes: interface.routes.iter().map(route).collect(),
        neighbours: interface
            .neighbours
            .iter()
            .map(|n| v1::Neighbour { ip: octets(n.ip), mac: n.mac.to_vec() })
            .collect(),
    }
}

fn route(route: &link::Route) -> v1::Route {
    v1::Route {
        destination: octets(route.destination.address()),
        prefix_length: u32::from(route.destination.prefix()),
        gateway: route.gateway.map(octets).unwrap_or_default(),
        source: route.source.map(octets).unwrap_or_default(),
        metric: route.metric.unwrap_or_default(),
        on_link: route.onlink,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The pod's hosts file (hosts(5)): itself under its addresses, or without any under 127.0.1.1 as Debian has it.
pub(crate) fn hosts(hostname: &str, network: Option<&Network>, more: &str) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let ips: Vec<IpAddr> = network.map(|network| network.ips().collect()).unwrap_or_default();
    if ips.is_empty() {
        text.push_str(&format!("127.0.1.1\t{hostname}\n"));
    }
    for ip in ips {
        text.push_str(&format!("{ip}\t{hostname}\n"));
    }
    text.push_str(more);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_a_network_knows_itself_all_the_same() {
        let text = hosts("web", None, "192.0.2.7\tdb\n");
        assert!(text.ends_with("127.0.1.1\tweb\n192.0.2.7\tdb\n"), "{text}");
    }
}
