//! rtnetlink requests as bytes: `struct nlmsghdr`, the family's header, attributes (rtnetlink(7), linux/rtnetlink.h,
//! linux/if_addr.h, linux/neighbour.h). Numbers are in host order, addresses in network order.

use std::net::IpAddr;

use super::check::{Neighbour, Prefix, Route};

// `nlmsg_flags`.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;

// `nlmsg_type`.
const NEWLINK: u16 = 16;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const NEWNEIGH: u16 = 28;

// Attributes.
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// `IFA_F_NODAD | IFA_F_PERMANENT`: not questioned, and for good.
const ADDRESS_FLAGS: u32 = 0x02 | 0x80;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const NUD_PERMANENT: u16 = 0x80;
const IFF_UP: u32 = 1;

/// A request being put together; [`finish`](Self::finish) fills in its length.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | ACK | flags).to_ne_bytes());
        // Sequence number 1, port 0: one request per socket and time.
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        Self(bytes)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// `struct rtattr`: length and type, the value, padded to four bytes.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_ne_bytes();
        for (to, from) in self.0.iter_mut().zip(length) {
            *to = from;
        }
        self.0
    }
}

fn family(ip: IpAddr) -> u8 {
    // AF_INET, AF_INET6.
    if ip.is_ipv4() { 2 } else { 10 }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

/// Name and, unless 0, MTU of an interface that is down.
pub(super) fn link(index: u32, name: &str, mtu: u32) -> Vec<u8> {
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    let message = Message::new(NEWLINK, 0).bytes(&link_header(index, 0, 0)).attribute(IFLA_IFNAME, &value);
    if mtu == 0 { message.finish() } else { message.attribute(IFLA_MTU, &mtu.to_ne_bytes()).finish() }
}

pub(super) fn link_up(index: u32) -> Vec<u8> {
    Message::new(NEWLINK, 0).bytes(&link_header(index, IFF_UP, IFF_UP)).finish()
}

pub(super) fn address(index: u32, address: &Prefix) -> Vec<u8> {
    let ip = octets(address.ip);
    let message = Message::new(NEWADDR, CREATE | REPLACE)
        .bytes(&[family(address.ip), address.length, 0, RT_SCOPE_UNIVERSE])
        .bytes(&index.to_ne_bytes())
        .attribute(IFA_LOCAL, &ip)
        .attribute(IFA_ADDRESS, &ip)
        .attribute(IFA_FLAGS, &ADDRESS_FLAGS.to_ne_bytes());
    match broadcast(address) {
        Some(broadcast) => message.attribute(IFA_BROADCAST, &broadcast).finish(),
        None => message.finish(),
    }
}

/// The last address of an IPv4 network that has room for one (RFC 919; not in /31 and /32, RFC 3021).
fn broadcast(address: &Prefix) -> Option<[u8; 4]> {
    let IpAddr::V4(ip) = address.ip else { return None };
    (address.length < 31)
        .then(|| (u32::from(ip) | u32::MAX.checked_shr(u32::from(address.length)).unwrap_or(0)).to_be_bytes())
}

pub(super) fn route(index: u32, route: &Route) -> Vec<u8> {
    let scope = if route.gateway.is_none() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
    let flags = if route.on_link { RTNH_F_ONLINK } else { 0 };
    let destination = route.destination;
    let mut message = Message::new(NEWROUTE, CREATE | REPLACE)
        .bytes(&[family(destination.ip), destination.length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST])
        .bytes(&flags.to_ne_bytes())
        .attribute(RTA_OIF, &index.to_ne_bytes());
    if destination.length > 0 {
        message = message.attribute(RTA_DST, &octets(destination.ip));
    }
    for (kind, ip) in [(RTA_GATEWAY, route.gateway), (RTA_PREFSRC, route.source)] {
        if let Some(ip) = ip {
            message = message.attribute(kind, &octets(ip));
        }
    }
    if route.metric == 0 {
        message.finish()
    } else {
        message.attribute(RTA_PRIORITY, &route.metric.to_ne_bytes()).finish()
    }
}

pub(super) fn neighbour(index: u32, neighbour: &Neighbour) -> Vec<u8> {
    Message::new(NEWNEIGH, CREATE | REPLACE)
        .bytes(&[family(neighbour.ip), 0, 0, 0])
        .bytes(&index.to_ne_bytes())
        .bytes(&NUD_PERMANENT.to_ne_bytes())
        .bytes(&[0, 0])
        .attribute(NDA_DST, &octets(neighbour.ip))
        .attribute(NDA_LLADDR, &neighbour.mac)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_holds_the_length_and_attributes_are_padded() {
        let bytes = link(7, "eth0", 1450);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
        // nlmsghdr, ifinfomsg, "eth0\0" in 12 bytes, the MTU in 8.
        assert_eq!(bytes.len(), 16 + 16 + 12 + 8);
        assert_eq!(&bytes[32..36], [9, 0, 3, 0]);
    }

    #[test]
    fn broadcast_addresses_end_the_network() {
        let of = |text: &str, length| broadcast(&Prefix { ip: text.parse().unwrap(), length });
        assert_eq!(of("10.88.1.2", 16), Some([10, 88, 255, 255]));
        assert_eq!(of("10.88.1.2", 0), Some([255; 4]));
        assert_eq!(of("10.88.1.2", 31), None);
        assert_eq!(of("fd00::1", 64), None);
    }
}
