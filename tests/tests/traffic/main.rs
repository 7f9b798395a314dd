//! What passes between a pod and others: TCP and UDP, IPv4 and IPv6, small and large frames, many connections, many
//! bytes, and no more of them a second than was allowed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod peer;

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use husk_tests::fixture::Husk;
use peer::{ECHO, PEER, SINK, SOURCE, TICK};

const IMAGE: &str = "kennethreitz/httpbin";

/// Connections, one after the other: enough to use every port of the client and every slot of a ring more than once.
/// An emulated machine makes some hundred a second, so this takes a quarter of an hour there.
const CONNECTIONS: u32 = 100_000;

/// Bytes each way: enough for rings and windows to turn over many thousand times.
const BULK: usize = 1 << 30;

/// A pod that serves, with these flags; it is called `peer`.
struct Pod<'a> {
    husk: &'a Husk,
    ip: IpAddr,
    ip6: IpAddr,
}

impl<'a> Pod<'a> {
    fn serve(husk: &'a Husk, name: &str, flags: &[&str]) -> Self {
        let command = [&["run", "-d", "--name", name], flags, &[IMAGE, "python3.11", "-c", PEER, "serve"]].concat();
        husk.ok(&command);
        husk.wait_for_log(name, "serving");
        let inspect = husk.inspect(name);
        let ip = |index: usize| inspect["IPs"][index].as_str().unwrap().parse().unwrap();
        Self { husk, ip: ip(0), ip6: ip(1) }
    }

    fn ips(&self) -> [IpAddr; 2] {
        [self.ip, self.ip6]
    }

    /// What both ends of the cable say of it, and whether it still carries anything: for whoever has to find out where
    /// frames stay.
    fn network_state(&self) -> String {
        const STATE: &str = "ip -s link; ip address; ip neigh; ip -6 route; cat /proc/interrupts /proc/loadavg \
                             /proc/net/softnet_stat /proc/net/sockstat /proc/net/sockstat6 /proc/net/snmp \
                             /proc/net/snmp6 /proc/net/netstat; dmesg | tail -n 20";
        let again = self.ips().map(|ip| (ip, peer::tick_once((ip, TICK))));
        let inside = self.husk.run(&["exec", "peer", "sh", "-c", STATE]).text();
        let outside = Command::new("sh").args(["-c", STATE]).output().unwrap();
        let outside = String::from_utf8_lossy(&outside.stdout);
        format!("once more: {again:?}\n--- in the pod:\n{inside}\n--- on the host:\n{outside}")
    }

    /// The host's addresses on the pod's network.
    fn gateways(&self, name: &str) -> [IpAddr; 2] {
        ["-4", "-6"].map(|family| {
            let route = self.husk.sh(name, &format!("ip {family} route | awk '/^default/{{print $3}}'"));
            route.trim().parse().unwrap_or_else(|_| panic!("no default route by {family}: {route}"))
        })
    }
}

/// A network of `/etc/cni/net.d`'s like, which goes with its bridge.
struct Network {
    directory: tempfile::TempDir,
    bridge: &'static str,
}

impl Network {
    fn jumbo(mtu: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bridge = "jumbo0";
        let list = serde_json::json!({ "cniVersion": "1.0.0", "name": "jumbo", "plugins": [{
            "type": "bridge", "bridge": bridge, "isGateway": true, "mtu": mtu,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": "10.120.0.0/24" }], [{ "subnet": "fd68:7573:6b01::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        }]});
        std::fs::write(directory.path().join("10-jumbo.conflist"), list.to_string()).unwrap();
        Self { directory, bridge }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["link", "del", self.bridge]).status());
    }
}

#[test]
fn tcp_and_udp_pass_both_ways_over_both_families() {
    peer::serve();
    let husk = Husk::new();
    let flags = ["--network", "bridge", "-p", "17000:7000", "-p", "17003:7003/udp"];
    let pod = Pod::serve(&husk, "peer", &flags);
    for ip in pod.ips() {
        for size in [1, 1400, 4000] {
            peer::echo((ip, ECHO), size);
        }
        peer::upload((ip, SINK), 1 << 20);
        peer::download((ip, SOURCE), 1 << 20);
    }
    // From the pod to the host, and by the host's addresses back to the pod's published ports.
    for gateway in pod.gateways("peer") {
        let host = gateway.to_string();
        let said = husk.ok(&["exec", "peer", "python3.11", "-c", PEER, "call", &host]);
        assert_eq!(said, format!("called {host}"));
        peer::upload((gateway, 17_000), 1 << 16);
        peer::echo((gateway, 17_003), 1400);
    }
    let localhost: IpAddr = [127, 0, 0, 1].into();
    peer::upload((localhost, 17_000), 1 << 16);
    peer::echo((localhost, 17_003), 1400);
    // From pod to pod.
    for ip in pod.ips().map(|ip| ip.to_string()) {
        let call = ["run", "--rm", "--network", "bridge", IMAGE, "python3.11", "-c", PEER, "call", &ip];
        assert_eq!(husk.ok(&call), format!("called {ip}"));
    }
    husk.ok(&["rm", "-f", "peer"]);
}

/// The largest datagrams that pass whole, for both families, and bytes of both directions.
fn frames_of(mtu: usize, flags: &[&str], husk: &Husk) {
    peer::serve();
    let pod = Pod::serve(husk, "peer", flags);
    assert_eq!(husk.sh("peer", "cat /sys/class/net/eth0/mtu"), mtu.to_string());
    for (gateway, headers) in pod.gateways("peer").into_iter().zip([28, 48]) {
        let (host, largest) = (gateway.to_string(), (mtu - headers).to_string());
        let said = husk.ok(&["exec", "peer", "python3.11", "-c", PEER, "largest", &host, &largest]);
        assert_eq!(said, format!("whole up to {largest} Message too long"));
    }
    for ip in pod.ips() {
        peer::echo((ip, ECHO), mtu - 48);
        peer::upload((ip, SINK), 4 << 20);
        peer::download((ip, SOURCE), 4 << 20);
    }
    husk.ok(&["rm", "-f", "peer"]);
}

#[test]
fn frames_of_1500_bytes_pass_whole() {
    let husk = Husk::new();
    frames_of(1500, &["--network", "bridge"], &husk);
}

#[test]
fn frames_of_9000_bytes_pass_whole() {
    let mut husk = Husk::new();
    let network = Network::jumbo(9000);
    husk.set("HUSK_CNI_CONFIG_DIRS", network.path());
    frames_of(9000, &["--network", "jumbo"], &husk);
}

#[test]
fn many_short_connections_are_each_answered() {
    let husk = Husk::new();
    let pod = Pod::serve(&husk, "peer", &["--network", "bridge"]);
    drop(peer::connect((pod.ip, TICK)));
    let begin = Instant::now();
    for number in 0..CONNECTIONS {
        let ip = pod.ips()[usize::from(number % 2 == 1)];
        if let Err(error) = peer::tick_once((ip, TICK)) {
            panic!("connection {number} of {CONNECTIONS} to {ip}: {error}\n{}", pod.network_state());
        }
    }
    println!("{} connections, {:.0} a second", CONNECTIONS, f64::from(CONNECTIONS) / begin.elapsed().as_secs_f64());
    husk.ok(&["rm", "-f", "peer"]);
}

#[test]
fn many_bytes_arrive_as_they_were_sent() {
    let husk = Husk::new();
    let pod = Pod::serve(&husk, "peer", &["--network", "bridge"]);
    for up in [true, false] {
        let rate = rate(&pod, up, BULK);
        println!("{} MiB {}, {rate:.0} bytes a second", BULK >> 20, if up { "up" } else { "down" });
    }
    husk.ok(&["rm", "-f", "peer"]);
}

/// Bytes a second of a transfer towards the pod or from it, which the receiver has compared with what was sent.
fn rate(pod: &Pod, up: bool, count: usize) -> f64 {
    let begin = Instant::now();
    if up {
        peer::upload((pod.ip, SINK), count)
    } else {
        peer::download((pod.ip, SOURCE), count)
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

/// The link that the host has of a pod, and its queues.
fn queues(husk: &Husk, pod: &str) -> String {
    let netns = format!("link-netns husk-{}", husk.inspect(pod)["Id"].as_str().unwrap());
    let links = run("ip", &["-o", "link", "show", "type", "veth"]);
    let link = links.lines().find(|line| line.contains(&netns)).unwrap_or_else(|| panic!("no {netns}: {links}"));
    let name = link.split(": ").nth(1).unwrap().split('@').next().unwrap();
    let mut queues = run("tc", &["qdisc", "show", "dev", name]);
    // What the pod sends is redirected to a link of its own, whose queue limits it.
    let filters = run("tc", &["filter", "show", "dev", name, "parent", "ffff:"]);
    if let Some(other) = filters.split("to device ").nth(1).and_then(|rest| rest.split(')').next()) {
        queues += &run("tc", &["qdisc", "show", "dev", other]);
    }
    queues
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_pod_gets_no_more_bandwidth_than_it_was_given() {
    // Bytes a second, and what may pass besides: the burst, and what is in flight at the end.
    const LIMIT: f64 = 500_000.0;
    const SLACK: f64 = 1.25;
    const COUNT: usize = 3 << 20;
    let husk = Husk::new();
    let free = Pod::serve(&husk, "free", &["--network", "bridge"]);
    assert!(!queues(&husk, "free").contains("tbf"));
    let flags = ["--network", "bridge", "--ingress-bandwidth", "4M", "--egress-bandwidth", "4M"];
    let limited = Pod::serve(&husk, "limited", &flags);
    let queues = queues(&husk, "limited");
    assert_eq!(queues.matches("rate 4Mbit").count(), 2, "{queues}");
    for up in [true, false] {
        let (without, with) = (rate(&free, up, COUNT), rate(&limited, up, COUNT));
        println!("up: {up}; {without:.0} bytes a second without a limit, {with:.0} with {LIMIT:.0}");
        assert!(with < LIMIT * SLACK, "the limit of {LIMIT} is passed: {with}");
        assert!(with * 2.0 < without, "{with} is not well below {without}");
    }
    husk.ok(&["rm", "-f", "free", "limited"]);
}

#[test]
fn a_manifest_limits_bandwidth_by_annotations() {
    let husk = Husk::new();
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: slow\n  annotations:\n    \
                    kubernetes.io/ingress-bandwidth: 2M\n    kubernetes.io/egress-bandwidth: 3M\nspec:\n  \
                    containers: [{name: app, image: busybox, command: [sleep, '1000']}]\n";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pod.yaml");
    std::fs::write(&file, manifest).unwrap();
    let file = file.to_string_lossy();
    husk.ok(&["kube", "play", &file]);
    let queues = queues(&husk, "slow");
    assert!(queues.contains("rate 2Mbit") && queues.contains("rate 3Mbit"), "{queues}");
    husk.ok(&["kube", "down", &file]);
}
