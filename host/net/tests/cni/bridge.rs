//! The built-in bridge network with Debian's plugins.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use husk_net::NetNs;
use husk_net::cni::{
    Attachment, BRIDGE, BRIDGE_SUBNET, CACHE_DIR, Cni, Network, PortMapping, Protocol, RuntimeConfig, bridge_network,
};
use husk_net::link::{Interface, Scope, create_tap, join, separate};

use crate::guest::Guest;
use crate::world::{in_a_world_of_its_own, ip, netns, remove, run};

const PATIENCE: Duration = Duration::from_secs(60);

struct Fixture {
    cni: Cni,
    network: Network,
}

/// A namespace on the network.
struct Pod {
    netns: NetNs,
    attachment: Attachment,
    ip: Ipv4Addr,
}

impl Fixture {
    fn new() -> Self {
        let plugins = [PathBuf::from("/usr/lib/cni")];
        let network = bridge_network(BRIDGE_SUBNET.parse().unwrap(), &plugins).unwrap();
        Self { cni: Cni::new(plugins.to_vec(), Path::new(CACHE_DIR)), network }
    }

    async fn pod(&self, name: &str, port_mappings: Vec<PortMapping>) -> Pod {
        let netns = netns(name).await;
        let attachment = Attachment {
            container_id: name.into(),
            netns: Some(netns.path().into()),
            ifname: "eth0".into(),
            args: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), name.into())],
            runtime: RuntimeConfig { port_mappings, ..RuntimeConfig::default() },
        };
        let result = self.cni.add(&self.network, &attachment).await.unwrap();
        let IpAddr::V4(ip) = result.ips[0].address.address() else { panic!("{result:?}") };
        Pod { netns, attachment, ip }
    }

    async fn remove(&self, pod: Pod) {
        for _ in 0..2 {
            assert!(self.cni.del(&self.network, &pod.attachment).await.unwrap().vanished.is_empty());
        }
        remove(&pod.netns);
        // And a third time, without its namespace.
        assert!(self.cni.del(&self.network, &pod.attachment).await.unwrap().vanished.is_empty());
    }

    /// CNI plugins leave the bridge to the next pod.
    fn end(self) {
        ip(&format!("link del {BRIDGE}"));
        drop(self);
    }
}

/// Answers each connection to the port with one byte, in a thread that ends with its namespace's last user.
async fn listen(netns: &NetNs, port: u16) {
    let serve = move || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let _ = connection.and_then(|mut connection| connection.write_all(b"x"));
            }
        });
    };
    netns.run(serve).await.unwrap();
}

/// One byte from the port, or why there is none.
fn get(address: impl Into<SocketAddr>, patience: Duration) -> std::io::Result<u8> {
    let mut connection = TcpStream::connect_timeout(&address.into(), patience)?;
    connection.set_read_timeout(Some(patience))?;
    let mut byte = [0];
    connection.read_exact(&mut byte)?;
    Ok(byte[0])
}

#[test]
fn two_pods_on_the_bridge_reach_each_other() {
    in_a_world_of_its_own(|| async {
        let fixture = Fixture::new();
        fixture.cni.ready(&fixture.network).await.unwrap();
        let (a, b) = (fixture.pod("pod-a", Vec::new()).await, fixture.pod("pod-b", Vec::new()).await);
        listen(&a.netns, 80).await;
        let address = SocketAddr::from((a.ip, 80));
        assert_eq!(b.netns.run(move || get(address, PATIENCE)).await.unwrap().unwrap(), b'x');
        assert_eq!(get(address, PATIENCE).unwrap(), b'x', "from the host");
        let eth0 = Interface::read(&a.netns, "eth0").await.unwrap();
        let addresses: Vec<_> = eth0.addresses.iter().filter(|address| address.scope == Scope::Universe).collect();
        assert_eq!(addresses[0].net.to_string(), format!("{}/16", a.ip));
        let default = eth0.routes.iter().find(|route| route.destination.prefix() == 0).unwrap();
        assert_eq!(default.gateway, Some([10, 119, 0, 1].into()));
        fixture.cni.check(&fixture.network, &a.attachment).await.unwrap();
        a.netns.run(|| ip("route del default")).await.unwrap();
        let error = fixture.cni.check(&fixture.network, &a.attachment).await.unwrap_err().to_string();
        assert!(error.contains("CNI plugin bridge of network husk: CHECK failed: it says: "), "{error}");
        for pod in [a, b] {
            fixture.remove(pod).await;
        }
        fixture.end();
    });
}

#[test]
fn a_published_port_leads_to_the_pod_until_it_goes() {
    in_a_world_of_its_own(|| async {
        let fixture = Fixture::new();
        let port = PortMapping { host_port: 8080, container_port: 80, protocol: Protocol::Tcp, host_ip: None };
        let pod = fixture.pod("pod-a", vec![port]).await;
        listen(&pod.netns, 80).await;
        let published = SocketAddr::from(([10, 119, 0, 1], 8080));
        assert_eq!(get(published, PATIENCE).unwrap(), b'x');
        fixture.remove(pod).await;
        assert_eq!(get(published, PATIENCE).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        fixture.end();
    });
}

#[test]
fn a_pod_whose_namespace_vanished_gives_its_address_back() {
    in_a_world_of_its_own(|| async {
        let fixture = Fixture::new();
        let pod = fixture.pod("pod-a", Vec::new()).await;
        let note = format!("/var/lib/cni/networks/husk/{}", pod.ip);
        assert!(Path::new(&note).exists());
        remove(&pod.netns);
        drop(pod.netns);
        // Another process finds it in the cache.
        let attached: Vec<_> = fixture.cni.attachments(Some("pod-a")).unwrap().map(Result::unwrap).collect();
        assert_eq!(attached.len(), 1);
        for (network, attachment) in attached {
            assert!(fixture.cni.del(&network, &attachment).await.unwrap().vanished.is_empty());
        }
        assert!(!Path::new(&note).exists());
        // The bridge plugin looks for its masquerading rules by the interface's addresses, and so finds them no more.
        run("iptables", "-t nat -F");
        fixture.end();
    });
}

#[test]
fn a_guest_behind_a_tap_stands_in_for_the_interface() {
    in_a_world_of_its_own(|| async {
        let fixture = Fixture::new();
        let (a, b) = (fixture.pod("pod-a", Vec::new()).await, fixture.pod("pod-b", Vec::new()).await);
        let eth0 = Interface::read(&a.netns, "eth0").await.unwrap();
        let tap = create_tap(&a.netns, "tap0", eth0.mtu).await.unwrap();
        join(&a.netns, "eth0", "tap0").await.unwrap();

        // The namespace has the address and a listener, and yet answers nobody, not even ARP.
        listen(&a.netns, 80).await;
        let address = SocketAddr::from((a.ip, 80));
        let error = b.netns.run(move || get(address, Duration::from_secs(8))).await.unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::TimedOut), "{error}");
        let neighbours = b.netns.run(|| run("ip", "neigh show dev eth0")).await.unwrap();
        assert!(!neighbours.contains("lladdr"), "somebody answered: {neighbours}");

        // The guest speaks first: it finds its peer and the gateway.
        let guest = Guest::new(tap, eth0.mac, a.ip);
        let peer = Interface::read(&b.netns, "eth0").await.unwrap();
        assert_eq!(guest.resolve(b.ip).await, peer.mac);
        let gateway = husk_bridge_mac();
        assert_eq!(guest.resolve([10, 119, 0, 1].into()).await, gateway);

        // And it is found and answers, with small datagrams and with the largest.
        for size in [1, 64, 1472] {
            let target = SocketAddr::from((a.ip, 7));
            let asking = b.netns.run(move || echo(target, size));
            tokio::select! {
                answered = asking => answered.unwrap(),
                () = guest.serve() => {}
            }
        }

        // Separated, the namespace answers again.
        separate(&a.netns, "eth0", "tap0").await.unwrap();
        drop(guest);
        assert_eq!(b.netns.run(move || get(address, PATIENCE)).await.unwrap().unwrap(), b'x');
        for pod in [a, b] {
            fixture.remove(pod).await;
        }
        fixture.end();
    });
}

fn husk_bridge_mac() -> [u8; 6] {
    let shown = run("ip", &format!("-o link show {BRIDGE}"));
    let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// Sends datagrams of that many bytes until one comes back.
fn echo(target: SocketAddr, size: usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let sent = vec![b'x'; size];
    let begin = Instant::now();
    loop {
        // Unreachable until the earlier failure to resolve is forgotten.
        let _ = socket.send_to(&sent, target);
        let mut received = [0; 2048];
        match socket.recv_from(&mut received) {
            Ok((length, from)) => {
                assert_eq!((&received[..length], from), (&sent[..], target));
                return;
            }
            Err(error) => assert!(begin.elapsed() < PATIENCE, "no answer of {size} bytes: {error}"),
        }
    }
}
