//! Reading an interface, and taps without a guest.

use husk_net::link::{Interface, LinkError, Scope, create_tap, join, separate};
use husk_net::{IpNet, NetNs};

use crate::world::{in_a_world_of_its_own, interfaces, ip, netns, remove, run};

/// Runs `ip` with these words inside the namespace.
async fn ip_in(netns: &NetNs, words: &'static str) {
    netns.run(move || ip(words)).await.unwrap();
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn an_interface_is_read_as_it_is() {
    in_a_world_of_its_own(|| async {
        let pod = netns("pod-a").await;
        for words in [
            "link add eth0 address 02:00:00:00:00:05 mtu 1400 type veth peer name other",
            "link set eth0 up",
            "link set other up",
            "addr add 10.7.0.1/24 dev other",
            // As Calico has it: an address without a network, and a gateway that only the neighbour table knows.
            "addr add 10.1.0.2/32 dev eth0",
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0",
            "neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent",
            "route add 10.9.0.0/16 via 10.9.9.9 dev eth0 onlink src 10.1.0.2 metric 5 mtu 1300",
            "route add 10.10.0.0/16 dev eth0 table 77",
            "addr add fd00::2/64 dev eth0 nodad",
            "-6 route add default via fd00::1 dev eth0 metric 7",
            "-6 neigh add fd00::1 lladdr ee:ee:ee:ee:ee:01 dev eth0 nud permanent",
            "neigh add 10.7.0.9 lladdr ee:ee:ee:ee:ee:02 dev other nud permanent",
        ] {
            ip_in(&pod, words).await;
        }
        let eth0 = Interface::read(&pod, "eth0").await.unwrap();
        assert_eq!((eth0.mac, eth0.mtu), ([2, 0, 0, 0, 0, 5], 1400));
        let global = eth0.addresses.iter().filter(|address| address.scope == Scope::Universe);
        assert_eq!(global.map(|address| address.net).collect::<Vec<_>>(), [net("10.1.0.2/32"), net("fd00::2/64")]);
        let link = eth0.addresses.iter().find(|address| address.scope == Scope::Link).unwrap();
        assert_eq!(link.net, net("fe80::ff:fe00:5/64"));
        let mut routes: Vec<_> = eth0.routes.iter().map(|route| route.destination.to_string()).collect();
        routes.sort();
        assert_eq!(routes, ["0.0.0.0/0", "10.9.0.0/16", "169.254.1.1/32", "::/0"]);
        let route = |to: &str| eth0.routes.iter().find(|route| route.destination == net(to)).unwrap();
        assert_eq!(route("0.0.0.0/0").gateway, Some([169, 254, 1, 1].into()));
        assert_eq!((route("169.254.1.1/32").gateway, route("169.254.1.1/32").scope), (None, Scope::Link));
        assert_eq!((route("::/0").gateway, route("::/0").metric), (Some("fd00::1".parse().unwrap()), Some(7)));
        let far = route("10.9.0.0/16");
        assert_eq!((far.gateway, far.source), (Some([10, 9, 9, 9].into()), Some([10, 1, 0, 2].into())));
        assert_eq!((far.onlink, far.metric, far.mtu), (true, Some(5), Some(1300)));
        assert!(!route("0.0.0.0/0").onlink);
        let neighbours: Vec<_> = eth0.neighbours.iter().map(|neighbour| (neighbour.ip, neighbour.mac[5])).collect();
        assert_eq!(neighbours, [([169, 254, 1, 1].into(), 0xee), ("fd00::1".parse().unwrap(), 1)]);
        remove(&pod);
    });
}

#[test]
fn what_a_guest_cannot_be_given_is_refused() {
    in_a_world_of_its_own(|| async {
        let pod = netns("pod-a").await;
        let error = Interface::read(&pod, "eth0").await.unwrap_err().to_string();
        assert_eq!(
            error,
            "network namespace /run/netns/pod-a has no interface eth0; did the CNI plugins make another?"
        );
        let error = Interface::read(&pod, "eth0/..").await.unwrap_err();
        assert!(matches!(error, LinkError::BadName { .. }), "{error}");
        for words in [
            "link add eth0 type veth peer name other",
            "link set eth0 up",
            "link set other up",
            "addr add 10.1.0.2/16 dev eth0",
            "route add 10.9.0.0/16 nexthop via 10.1.0.3 dev eth0 nexthop via 10.1.0.4 dev eth0",
        ] {
            ip_in(&pod, words).await;
        }
        let error = Interface::read(&pod, "eth0").await.unwrap_err().to_string();
        assert!(error.contains("eth0") && error.contains("a route over several next hops"), "{error}");
        remove(&pod);
    });
}

#[test]
fn a_tap_lives_as_long_as_its_descriptor_and_keeps_quiet() {
    in_a_world_of_its_own(|| async {
        let pod = netns("pod-a").await;
        let tap = create_tap(&pod, "tap0", 1400).await.unwrap();
        let shown = pod.run(|| run("ip", "-d link show tap0")).await.unwrap();
        assert!(shown.contains("mtu 1400") && shown.contains("persist off") && shown.contains("UP"), "{shown}");
        assert!(shown.contains("vnet_hdr on") && shown.contains("pi off"), "{shown}");
        let addresses = pod.run(|| run("ip", "addr show tap0")).await.unwrap();
        assert!(!addresses.contains("inet"), "{addresses}");
        assert_eq!(rustix::io::read(&tap, &mut [0; 2048]).unwrap_err(), rustix::io::Errno::AGAIN);
        let error = create_tap(&pod, "tap0", 1400).await.unwrap_err();
        assert!(matches!(error, LinkError::TapExists { .. }), "{error}");
        drop(tap);
        // A process that another test forks meanwhile has a copy until it executes its program.
        let begin = std::time::Instant::now();
        while pod.run(interfaces).await.unwrap().contains(&"tap0".to_owned()) {
            assert!(begin.elapsed().as_secs() < 60, "the tap stays");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        drop(create_tap(&pod, "tap0", 9000).await.unwrap());
        remove(&pod);
    });
}

#[test]
fn a_join_is_made_once_and_undone_any_number_of_times() {
    in_a_world_of_its_own(|| async {
        let pod = netns("pod-a").await;
        separate(&pod, "eth0", "tap0").await.unwrap();
        ip_in(&pod, "link add eth0 type veth peer name other").await;
        let error = join(&pod, "eth0", "tap0").await.unwrap_err();
        assert!(matches!(&error, LinkError::Missing { name, .. } if name == "tap0"), "{error}");
        let tap = create_tap(&pod, "tap0", 1500).await.unwrap();
        let qdiscs = async || pod.run(|| run("tc", "qdisc show").matches("ingress").count()).await.unwrap();
        assert_eq!(qdiscs().await, 0, "a failed join left something");
        for _ in 0..3 {
            join(&pod, "eth0", "tap0").await.unwrap();
            assert_eq!(qdiscs().await, 2);
            let error = join(&pod, "eth0", "tap0").await.unwrap_err();
            assert!(matches!(error, LinkError::InUse { .. }), "{error}");
            assert_eq!(qdiscs().await, 2, "the refused join undid the first");
            separate(&pod, "eth0", "tap0").await.unwrap();
            assert_eq!(qdiscs().await, 0);
            separate(&pod, "eth0", "tap0").await.unwrap();
        }
        // Joined again after the guest is gone: one interface is left to separate.
        join(&pod, "eth0", "tap0").await.unwrap();
        drop(tap);
        separate(&pod, "eth0", "tap0").await.unwrap();
        assert_eq!(qdiscs().await, 0);
        remove(&pod);
    });
}
