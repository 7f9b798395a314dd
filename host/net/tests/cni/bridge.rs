//! Pods on the built-in bridge network: what reaches them, and what is left when they go.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use husk_net::cni::{BRIDGE, Bandwidth, PortMapping, Protocol, RuntimeConfig, Wants};
use husk_net::link::{Interface, Scope, create_tap, join, separate};

use crate::fixture::{Fixture, PATIENCE, Pod, get, listen};
use crate::guest::Guest;
use crate::world::{in_a_world_of_its_own, ip, netns, remove, run};

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
        assert_eq!(addresses[1].net.to_string(), format!("{}/64", a.ip6));
        assert!(eth0.routes.iter().any(|route| route.gateway == Some("fd68:7573:6b00::1".parse().unwrap())));
        let address6 = SocketAddr::from((a.ip6, 80));
        assert_eq!(b.netns.run(move || get(address6, PATIENCE)).await.unwrap().unwrap(), b'x', "by IPv6");
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
        let published6: SocketAddr = "[fd68:7573:6b00::1]:8080".parse().unwrap();
        // The bridge's own address is in doubt for a second, while the bridge asks whether it is a duplicate.
        let begin = Instant::now();
        while let Err(error) = get(published6, PATIENCE) {
            assert!(begin.elapsed() < PATIENCE, "by IPv6: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        fixture.remove(pod).await;
        assert_eq!(get(published6, PATIENCE).unwrap_err().kind(), ErrorKind::ConnectionRefused);
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
        run("ip6tables", "-t nat -F");
        fixture.end();
    });
}

#[test]
fn an_interface_that_went_leaves_no_rule_of_the_firewall() {
    in_a_world_of_its_own(|| async {
        let fixture = Fixture::new();
        let pod = fixture.pod("pod-a", Vec::new()).await;
        pod.netns.run(|| ip("link del eth0")).await.unwrap();
        // What the test's world finds at its end is that the masquerading rules are gone.
        fixture.remove(pod).await;
        fixture.end();
    });
}

#[test]
fn a_namespace_made_anew_lets_the_plugins_find_their_rules() {
    in_a_world_of_its_own(|| async {
        let fixture = Fixture::new();
        let Pod { netns: lost, attachment, ip, ip6 } = fixture.pod("pod-a", Vec::new()).await;
        remove(&lost);
        drop(lost);
        fixture.remove(Pod { netns: netns("pod-a").await, attachment, ip, ip6 }).await;
        fixture.end();
    });
}

#[test]
fn a_limit_of_bandwidth_is_a_queue_on_the_hosts_links() {
    in_a_world_of_its_own(|| async {
        let fixture = Fixture::wanting(Wants { ports: false, bandwidth: true });
        let bandwidth = Bandwidth {
            ingress_rate: 8_000_000,
            ingress_burst: 800_000,
            egress_rate: 16_000_000,
            egress_burst: 1_600_000,
        };
        let limited = RuntimeConfig { bandwidth: Some(bandwidth), ..RuntimeConfig::default() };
        let pod = fixture.pod_with("pod-a", limited).await;
        let queues = run("tc", "qdisc show");
        let limits: Vec<_> = queues.lines().filter(|line| line.starts_with("qdisc tbf")).collect();
        let has = |device: &str, rate: &str| limits.iter().any(|line| line.contains(device) && line.contains(rate));
        assert!(limits.len() == 2 && has("dev veth", "rate 8Mbit") && has("dev bwp", "rate 16Mbit"), "{queues}");
        fixture.remove(pod).await;
        assert!(!run("tc", "qdisc show").contains("tbf"));
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
