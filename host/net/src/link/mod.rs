//! Interfaces inside a network namespace: what CNI made there ([`Interface`]), a tap beside it ([`create_tap`]), and the
//! join of the two ([`join`], [`separate`]).
//!
//! Who answers for the interface's addresses? They stay on it, because the plugins' CHECK looks for them there. Yet the
//! namespace's stack never sees a frame: an ingress qdisc runs before any protocol handler (`sch_handle_ingress` in
//! `__netif_receive_skb_core`, net/core/dev.c), and its one filter steals every frame for the tap. So the guest alone
//! answers ARP, neighbour solicitations and everything else. What the namespace's kernel might still say unasked it is
//! kept from: IPv6 is off on the tap. The guest should add its IPv6 addresses without duplicate address detection; they
//! are detected already, and a bridge in hairpin mode would show the guest its own probe.

mod interface;
mod join;
mod netlink;
mod stand_in;
mod tap;

use std::path::PathBuf;

pub use interface::{Address, Interface, Neighbour, Route, Scope};
pub use join::{join, separate};
pub(crate) use netlink::{check_name, set_loopback_up};
pub(crate) use stand_in::stand_in;
pub use tap::create_tap;

use crate::netns::NetNsError;

/// Why an interface could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    #[error("network namespace {} has no interface {name}; did the CNI plugins make another?", netns.display())]
    Missing { netns: PathBuf, name: String },
    #[error("interface {name} in network namespace {}: cannot {action}: {source}", netns.display())]
    Io { netns: PathBuf, name: String, action: &'static str, source: std::io::Error },
    #[error("{name:?} cannot name an interface: 1 to 15 bytes without spaces, colons, slashes and percent signs")]
    BadName { name: String },
    #[error("interface {name} in network namespace {} exists already; separate and close the earlier tap", netns.display())]
    TapExists { netns: PathBuf, name: String },
    #[error("cannot open /dev/net/tun: {source}; load the tun module (modprobe tun) and run as root")]
    NoTun { source: std::io::Error },
    #[error(
        "interface {name} in network namespace {} has an ingress qdisc already; if an earlier pod left it, separate the \
         interface first, else another program steers its traffic and Husk cannot",
        netns.display()
    )]
    InUse { netns: PathBuf, name: String },
    #[error(
        "interface {name} in network namespace {} has {what}, which a guest cannot be given",
        netns.display()
    )]
    Unsupported { netns: PathBuf, name: String, what: String },
}
