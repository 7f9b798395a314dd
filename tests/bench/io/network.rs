//! The pod's network as CNI would leave it: a network namespace with one end of a veth, the other end in ours.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use husk_net::link::{create_tap, join, separate};
use husk_net::{NetNs, RUN_NETNS};
use tokio::runtime::Runtime;

use super::stage::tool;

const NAME: &str = "husk-bench";
const TAP: &str = "tap0";
const MTU: u32 = 1500;

/// Stands as long as this lives.
#[derive(Debug)]
pub(super) struct Network {
    netns: NetNs,
    runtime: Runtime,
}

/// A tap that is joined to the veth, until it is dropped.
#[derive(Debug)]
pub(super) struct Tap<'n> {
    network: &'n Network,
    pub(super) fd: OwnedFd,
}

impl Network {
    pub(super) const SERVER: &'static str = "10.213.77.1";
    pub(super) const GUEST: &'static str = "10.213.77.2";
    /// Of the veth's end in the namespace, and so of the guest.
    pub(super) const MAC: [u8; 6] = [0x02, 0x68, 0x75, 0x73, 0x6b, 0x02];

    pub(super) fn make() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let netns = runtime.block_on(NetNs::create(Path::new(RUN_NETNS), NAME))?;
        let network = Self { netns, runtime };
        let mac = Self::mac();
        let (server, guest) = (format!("{}/24", Self::SERVER), format!("{}/24", Self::GUEST));
        ip(&["link", "add", NAME, "type", "veth", "peer", "name", "eth0", "netns", NAME, "address", &mac])?;
        ip(&["addr", "add", &server, "dev", NAME])?;
        ip(&["link", "set", NAME, "up"])?;
        ip(&["-n", NAME, "addr", "add", &guest, "dev", "eth0"])?;
        ip(&["-n", NAME, "link", "set", "eth0", "up"])?;
        super::server::start(Self::SERVER)?;
        Ok(network)
    }

    pub(super) fn netns(&self) -> &Path {
        self.netns.path()
    }

    pub(super) fn mac() -> String {
        Self::MAC.map(|byte| format!("{byte:02x}")).join(":")
    }

    /// A tap as a pod's VM gets it.
    pub(super) fn tap(&self) -> Result<Tap<'_>> {
        let fd = self.runtime.block_on(async {
            let fd = create_tap(&self.netns, TAP, MTU).await?;
            join(&self.netns, "eth0", TAP).await?;
            anyhow::Ok(fd)
        });
        Ok(Tap { network: self, fd: fd.context("making the tap")? })
    }
}

impl Drop for Tap<'_> {
    fn drop(&mut self) {
        let separated = self.network.runtime.block_on(separate(&self.network.netns, "eth0", TAP));
        if let Err(error) = separated {
            eprintln!("bench: {error}");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The veth's end in the namespace goes with it, and with one end the other.
        if let Err(error) = NetNs::remove(self.netns.path()) {
            eprintln!("bench: {error}");
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    tool(Command::new("ip").args(arguments))
}
