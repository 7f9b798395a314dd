//! The request's fields, checked and typed.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use husk_agent_api::v1;

use crate::error::{Error, Result};

/// `IFNAMSIZ` without the NUL byte.
const MAX_NAME: usize = 15;
/// `ETH_MIN_MTU` of linux/if_ether.h, and the most that 16 bits hold.
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;
/// Entries of each list; a node has no pod with more.
const MAX_ENTRIES: usize = 1024;

#[derive(Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    /// 0: left as it is.
    pub(super) mtu: u32,
    pub(super) addresses: Vec<Prefix>,
    pub(super) routes: Vec<Route>,
    pub(super) neighbours: Vec<Neighbour>,
}

/// An address and how many of its leading bits name the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) ip: IpAddr,
    pub(super) length: u8,
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) destination: Prefix,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) metric: u32,
    pub(super) on_link: bool,
}

#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) ip: IpAddr,
    pub(super) mac: [u8; 6],
}

impl Display for Prefix {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.length)
    }
}

impl Display for Route {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, " through {gateway}"))
    }
}

impl Interface {
    pub(super) fn check(request: &v1::ConfigureInterfaceRequest) -> Result<Self> {
        let name = &request.name;
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.bytes().all(legal) {
            return Err(Error::invalid(format!("name: {name:?} is not a name of at most {MAX_NAME} bytes")));
        }
        if request.mtu != 0 && !MTU.contains(&request.mtu) {
            return Err(Error::invalid(format!("mtu: {} is not within {} to {}", request.mtu, MTU.start(), MTU.end())));
        }
        let lists = [request.addresses.len(), request.routes.len(), request.neighbours.len()];
        if lists.iter().any(|length| *length > MAX_ENTRIES) {
            return Err(Error::invalid(format!("a list has more than {MAX_ENTRIES} entries")));
        }
        Ok(Self {
            name: name.clone(),
            mtu: request.mtu,
            addresses: request
                .addresses
                .iter()
                .map(|address| prefix("addresses", &address.ip, address.prefix_length))
                .collect::<Result<_>>()?,
            routes: request.routes.iter().map(Route::check).collect::<Result<_>>()?,
            neighbours: request.neighbours.iter().map(Neighbour::check).collect::<Result<_>>()?,
        })
    }
}

impl Route {
    fn check(route: &v1::Route) -> Result<Self> {
        let destination = prefix("routes.destination", &route.destination, route.prefix_length)?;
        let other = |field, bytes: &[u8]| -> Result<Option<IpAddr>> {
            if bytes.is_empty() {
                return Ok(None);
            }
            let ip = ip(field, bytes)?;
            if ip.is_ipv4() != destination.ip.is_ipv4() {
                return Err(Error::invalid(format!("{field}: {ip} is of another family than {destination}")));
            }
            Ok(Some(ip))
        };
        Ok(Self {
            gateway: other("routes.gateway", &route.gateway)?,
            source: other("routes.source", &route.source)?,
            metric: route.metric,
            on_link: route.on_link,
            destination,
        })
    }
}

impl Neighbour {
    fn check(neighbour: &v1::Neighbour) -> Result<Self> {
        let mac = neighbour.mac.as_slice().try_into().map_err(|_| {
            Error::invalid(format!("neighbours.mac: {} bytes are no Ethernet address", neighbour.mac.len()))
        })?;
        Ok(Self { ip: ip("neighbours.ip", &neighbour.ip)?, mac })
    }
}

fn ip(field: &str, bytes: &[u8]) -> Result<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Ok(IpAddr::from(v4))
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        Ok(IpAddr::from(v6))
    } else {
        Err(Error::invalid(format!("{field}: {} bytes are no IP address", bytes.len())))
    }
}

fn prefix(field: &str, bytes: &[u8], length: u32) -> Result<Prefix> {
    let ip = ip(field, bytes)?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    match u8::try_from(length) {
        Ok(length) if length <= most => Ok(Prefix { ip, length }),
        _ => Err(Error::invalid(format!("{field}: a prefix of {length} bits is longer than the address {ip}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> v1::ConfigureInterfaceRequest {
        v1::ConfigureInterfaceRequest { name: "eth0".to_owned(), ..v1::ConfigureInterfaceRequest::default() }
    }

    #[test]
    fn wrong_fields_are_named() {
        let wrong = |change: fn(&mut v1::ConfigureInterfaceRequest), word: &str| {
            let mut request = base();
            change(&mut request);
            let error = Interface::check(&request).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        wrong(|r| r.name = "../etc".to_owned(), "name");
        wrong(|r| r.name = "a-name-of-16-byt".to_owned(), "name");
        wrong(|r| r.mtu = 67, "mtu");
        wrong(|r| r.addresses = vec![v1::Address { ip: vec![1; 5], prefix_length: 0 }], "addresses");
        wrong(|r| r.addresses = vec![v1::Address { ip: vec![1; 4], prefix_length: 33 }], "33 bits");
        wrong(
            |r| {
                r.routes = vec![v1::Route { destination: vec![0; 4], gateway: vec![1; 16], ..v1::Route::default() }];
            },
            "another family",
        );
        wrong(|r| r.neighbours = vec![v1::Neighbour { ip: vec![1; 4], mac: vec![0; 5] }], "mac");
        wrong(|r| r.neighbours = vec![v1::Neighbour::default(); 1025], "1024");
    }

    #[test]
    fn a_plain_interface_is_right() {
        let interface = Interface::check(&base()).unwrap();
        assert_eq!((interface.name.as_str(), interface.mtu), ("eth0", 0));
    }
}
