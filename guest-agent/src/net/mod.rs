//! The pod's network interfaces: what the host read from its side of the cable, set on ours.
//!
//! Requests are checked in `check`, turned into netlink messages in `message` and sent by `netlink`; `stats` counts what
//! passed. `forward` connects the host to ports of the pod.

mod check;
pub mod forward;
mod message;
mod netlink;
pub mod stats;

use std::fs;

use husk_agent_api::v1::ConfigureInterfaceRequest;

use crate::error::{Context, Error, Result};
use check::Interface;
use netlink::Netlink;

/// Sets up the interface `device`, as the kernel calls it so far, and brings it up.
///
/// The interface is left as it is when a field is wrong, and down when a later step fails.
pub fn configure(device: &str, request: &ConfigureInterfaceRequest) -> Result<()> {
    let interface = Interface::check(request)?;
    let index = index_of(device)?;
    let netlink = Netlink::open()?;
    netlink.send(&message::link(index, &interface.name, interface.mtu), "set name and MTU of", &interface.name)?;
    // No duplicate address detection: the host's end of the cable holds the same addresses and would win.
    quiet_ipv6(&interface.name)?;
    netlink.send(&message::link_up(index), "bring up", &interface.name)?;
    for address in &interface.addresses {
        netlink.send(&message::address(index, address), "add the address", address)?;
    }
    for neighbour in &interface.neighbours {
        netlink.send(&message::neighbour(index, neighbour), "add the neighbour", neighbour.ip)?;
    }
    // Gateways must be reachable before routes lead through them.
    let (direct, through): (Vec<_>, Vec<_>) = interface.routes.iter().partition(|route| route.gateway.is_none());
    for route in direct.into_iter().chain(through) {
        netlink.send(&message::route(index, route), "add the route", route)?;
    }
    Ok(())
}

fn index_of(device: &str) -> Result<u32> {
    let path = format!("/sys/class/net/{device}/ifindex");
    let text = fs::read_to_string(&path).on("read", &path)?;
    text.trim().parse().map_err(|_| Error::Internal(format!("{path} holds no number: {text:?}")))
}

/// The addresses are the host's to give: none by router advertisements, none questioned.
fn quiet_ipv6(name: &str) -> Result<()> {
    for (sysctl, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("autoconf", "0")] {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/{sysctl}");
        match fs::write(&path, value) {
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => result.on("write", &path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use husk_agent_api::v1;

    /// In a network namespace of its own, where "lo" is ours to set up. Needs root.
    fn isolated(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            // SAFETY: a new network namespace for this thread alone touches no memory and no descriptor.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            test();
        });
        thread.join().unwrap();
    }

    fn request() -> ConfigureInterfaceRequest {
        ConfigureInterfaceRequest {
            slot: 0,
            name: "lo".to_owned(),
            mtu: 1400,
            addresses: vec![
                v1::Address { ip: vec![10, 1, 2, 3], prefix_length: 24 },
                v1::Address { ip: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7].to_vec(), prefix_length: 64 },
            ],
            routes: vec![
                v1::Route { gateway: vec![10, 1, 2, 1], destination: vec![0; 4], metric: 50, ..v1::Route::default() },
                v1::Route { destination: vec![10, 1, 2, 0], prefix_length: 24, ..v1::Route::default() },
            ],
            neighbours: vec![],
        }
    }

    fn ip(arguments: &str) -> String {
        let output = std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn an_interface_gets_all_that_was_asked_for() {
        isolated(|| {
            configure("lo", &request()).unwrap();
            let link = ip("addr show lo");
            assert!(link.contains("mtu 1400") && link.contains("UP"), "{link}");
            assert!(link.contains("inet 10.1.2.3/24"), "{link}");
            assert!(link.contains("inet6 fd00::7/64") && !link.contains("tentative"), "{link}");
            let routes = ip("route");
            assert!(routes.contains("10.1.2.0/24 dev lo"), "{routes}");
        });
    }

    #[test]
    fn doing_it_twice_changes_nothing() {
        isolated(|| {
            configure("lo", &request()).unwrap();
            let before = ip("addr") + &ip("route");
            configure("lo", &request()).unwrap();
            assert_eq!(ip("addr") + &ip("route"), before);
        });
    }

    #[test]
    fn an_unreachable_gateway_is_named() {
        isolated(|| {
            let mut request = request();
            request.routes =
                vec![v1::Route { gateway: vec![192, 0, 2, 1], destination: vec![0; 4], ..v1::Route::default() }];
            let error = configure("lo", &request).unwrap_err().to_string();
            assert!(error.contains("192.0.2.1"), "{error}");
        });
    }
}
