//! The built-in bridge network with Debian's plugins, and pods on it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use husk_net::NetNs;
use husk_net::cni::{
    Attachment, BRIDGE, CACHE_DIR, Cni, Network, PortMapping, RuntimeConfig, Wants, bridge_network, bridge_subnets,
};

use crate::world::{ip, netns, remove};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Fixture {
    pub(crate) cni: Cni,
    pub(crate) network: Network,
}

/// A namespace on the network.
pub(crate) struct Pod {
    pub(crate) netns: NetNs,
    pub(crate) attachment: Attachment,
    pub(crate) ip: Ipv4Addr,
    pub(crate) ip6: Ipv6Addr,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::wanting(Wants { ports: true, bandwidth: false })
    }

    pub(crate) fn wanting(wants: Wants) -> Self {
        let plugins = [PathBuf::from("/usr/lib/cni")];
        let network = bridge_network(&bridge_subnets(), wants, &plugins).unwrap();
        Self { cni: Cni::new(plugins.to_vec(), Path::new(CACHE_DIR)), network }
    }

    pub(crate) async fn pod(&self, name: &str, port_mappings: Vec<PortMapping>) -> Pod {
        self.pod_with(name, RuntimeConfig { port_mappings, ..RuntimeConfig::default() }).await
    }

    pub(crate) async fn pod_with(&self, name: &str, runtime: RuntimeConfig) -> Pod {
        let netns = netns(name).await;
        let attachment = Attachment {
            container_id: name.into(),
            netns: Some(netns.path().into()),
            ifname: "eth0".into(),
            args: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), name.into())],
            runtime,
        };
        let result = self.cni.add(&self.network, &attachment).await.unwrap();
        let ips: Vec<_> = result.ips.iter().map(|ip| ip.address.address()).collect();
        let [IpAddr::V4(ip), IpAddr::V6(ip6)] = ips[..] else { panic!("{result:?}") };
        Pod { netns, attachment, ip, ip6 }
    }

    pub(crate) async fn remove(&self, pod: Pod) {
        for _ in 0..2 {
            assert!(self.cni.del(&self.network, &pod.attachment).await.unwrap().vanished.is_empty());
        }
        remove(&pod.netns);
        // And a third time, without its namespace.
        assert!(self.cni.del(&self.network, &pod.attachment).await.unwrap().vanished.is_empty());
    }

    /// CNI plugins leave the bridge to the next pod.
    pub(crate) fn end(self) {
        ip(&format!("link del {BRIDGE}"));
        drop(self);
    }
}

/// Answers each connection to the port, of either family, with one byte, in a thread that ends with its namespace's last user.
pub(crate) async fn listen(netns: &NetNs, port: u16) {
    let serve = move || {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let _ = connection.and_then(|mut connection| connection.write_all(b"x"));
            }
        });
    };
    netns.run(serve).await.unwrap();
}

/// One byte from the port, or why there is none.
pub(crate) fn get(address: impl Into<SocketAddr>, patience: Duration) -> std::io::Result<u8> {
    let mut connection = TcpStream::connect_timeout(&address.into(), patience)?;
    connection.set_read_timeout(Some(patience))?;
    let mut byte = [0];
    connection.read_exact(&mut byte)?;
    Ok(byte[0])
}
