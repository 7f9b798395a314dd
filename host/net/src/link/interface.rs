//! What stands on an interface.

use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::LinkError;
use super::netlink::{Link, inside};
use crate::ip::IpNet;
use crate::netns::NetNs;

/// An Ethernet interface and all that a guest needs to stand in for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub mac: [u8; 6],
    /// In bytes, without the Ethernet header.
    pub mtu: u32,
    pub addresses: Vec<Address>,
    /// Those of the main table, without what the kernel makes of the addresses by itself. In the kernel's order, which
    /// is not always one in which they can be added: gateways want their on-link routes first.
    pub routes: Vec<Route>,
    /// The permanent ones: what somebody configured, not what was learnt.
    pub neighbours: Vec<Neighbour>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub net: IpNet,
    /// `Link` for an IPv6 link-local address, which the guest makes of the same MAC by itself.
    pub scope: Scope,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    /// May be of the other family than the destination (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    pub scope: Scope,
    /// The gateway is reachable even though no address's network contains it.
    pub onlink: bool,
    /// Less is better. `None` is 0 for IPv4 and the kernel's default, 1024, for IPv6.
    pub metric: Option<u32>,
    /// In bytes, when smaller than the interface's.
    pub mtu: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub ip: IpAddr,
    pub mac: [u8; 6],
}

/// `enum rt_scope_t` of include/uapi/linux/rtnetlink.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Global.
    Universe,
    Site,
    Link,
    Host,
    Nowhere,
    Other(u8),
}

impl Interface {
    /// Reads interface `name` of the namespace. Routes over several next hops are refused, because a guest has one
    /// interface.
    pub async fn read(netns: &NetNs, name: &str) -> Result<Self, LinkError> {
        let link = Link::new(netns, name)?;
        let wanted = link.clone();
        inside(netns, &link, move |handle| Box::pin(async move { read(handle, &wanted).await })).await
    }
}

async fn read(handle: &Handle, link: &Link) -> Result<Interface, LinkError> {
    let message = link.get(handle).await?;
    let index = message.header.index;
    let (mac, mtu) = hardware(&message);
    let mac = mac.ok_or_else(|| unsupported(link, "no Ethernet address"))?;
    Ok(Interface {
        name: link.name.clone(),
        index,
        mac,
        mtu: mtu.ok_or_else(|| unsupported(link, "no MTU"))?,
        addresses: addresses(handle, link, index).await?,
        routes: routes(handle, link, index).await?,
        neighbours: neighbours(handle, link, index).await?,
    })
}

fn unsupported(link: &Link, what: impl Into<String>) -> LinkError {
    LinkError::Unsupported { netns: link.netns.clone(), name: link.name.clone(), what: what.into() }
}

fn hardware(message: &LinkMessage) -> (Option<[u8; 6]>, Option<u32>) {
    let (mut mac, mut mtu) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(bytes) => mtu = Some(*bytes),
            _ => {}
        }
    }
    (mac, mtu)
}

async fn addresses(handle: &Handle, link: &Link, index: u32) -> Result<Vec<Address>, LinkError> {
    let messages: Vec<_> = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .execute()
        .try_collect()
        .await
        .map_err(link.failed("list its addresses"))?;
    Ok(messages.iter().filter_map(address).collect())
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            _ => {}
        }
    }
    // Where both are given, IFA_ADDRESS is the peer's (include/uapi/linux/if_addr.h).
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    let scope = match message.header.scope {
        AddressScope::Universe => Scope::Universe,
        AddressScope::Site => Scope::Site,
        AddressScope::Link => Scope::Link,
        AddressScope::Host => Scope::Host,
        AddressScope::Nowhere => Scope::Nowhere,
        other => Scope::Other(other.into()),
    };
    Some(Address { net, scope })
}

async fn routes(handle: &Handle, link: &Link, index: u32) -> Result<Vec<Route>, LinkError> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut all = RouteMessageBuilder::<IpAddr>::new().build();
        all.header.address_family = family;
        let messages: Vec<RouteMessage> =
            handle.route().get(all).execute().try_collect().await.map_err(link.failed("list its routes"))?;
        for message in messages.iter().filter(|message| is_configured(message)) {
            let by = |hop: u32| hop == index;
            if message.attributes.iter().any(|attribute| {
                matches!(attribute, RouteAttribute::MultiPath(hops)
                if hops.iter().any(|hop| by(hop.interface_index)))
            }) {
                return Err(unsupported(link, "a route over several next hops"));
            }
            if message.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Oif(oif) if by(*oif))) {
                routes.push(route(message).ok_or_else(|| unsupported(link, "a route of an unknown kind"))?);
            }
        }
    }
    Ok(routes)
}

/// Somebody's will, as opposed to what the kernel derives from addresses or learns from redirects.
fn is_configured(message: &RouteMessage) -> bool {
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or_else(|| message.header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN)
        && message.header.kind == RouteType::Unicast
        && !matches!(message.header.protocol, RouteProtocol::Kernel | RouteProtocol::IcmpRedirect)
        && !message.header.flags.contains(RouteFlags::Cloned)
}

fn route(message: &RouteMessage) -> Option<Route> {
    let any = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    let mut route = Route {
        destination: IpNet::new(any, 0).ok()?,
        gateway: None,
        source: None,
        scope: match message.header.scope {
            RouteScope::Universe => Scope::Universe,
            RouteScope::Site => Scope::Site,
            RouteScope::Link => Scope::Link,
            RouteScope::Host => Scope::Host,
            RouteScope::NoWhere => Scope::Nowhere,
            other => Scope::Other(other.into()),
        },
        onlink: message.header.flags.contains(RouteFlags::Onlink),
        metric: None,
        mtu: None,
    };
    let mut destination = any;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => route.gateway = Some(ip(address)?),
            RouteAttribute::Via(RouteVia::Inet(address)) => route.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => route.gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => route.source = Some(ip(address)?),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    route.destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

async fn neighbours(handle: &Handle, link: &Link, index: u32) -> Result<Vec<Neighbour>, LinkError> {
    let messages: Vec<_> =
        handle.neighbours().get().execute().try_collect().await.map_err(link.failed("list its neighbours"))?;
    Ok(messages.iter().filter(|message| message.header.ifindex == index).filter_map(neighbour).collect())
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some(IpAddr::from(*address)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => ip = Some(IpAddr::from(*address)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    Some(Neighbour { ip: ip?, mac: mac? })
}
