//! A pod's address: the built-in bridge, published ports, names, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use husk_tests::fixture::{Husk, wait_for};

/// Answers every connection to a port with its host name, for ever.
const SERVER: &str = "while :; do hostname | nc -l -p 8080; done";

/// The pod's IPv4 address, as its container sees it.
fn address(husk: &Husk, container: &str) -> IpAddr {
    let text = husk.sh(container, "ip -4 -o addr show dev eth0 | awk '{print $4}' | cut -d / -f 1");
    text.trim().parse().unwrap_or_else(|_| panic!("no address: {text}"))
}

/// What a TCP server at `address` says before it closes.
fn said(address: (IpAddr, u16)) -> String {
    wait_for(&format!("an answer from {address:?}"), 10, || {
        let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        (!text.is_empty()).then(|| text.trim().to_owned())
    })
}

#[test]
fn a_pod_has_an_address_a_route_and_a_name_for_itself() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--network", "bridge", "--name", "one", "-h", "one", "busybox", "sleep", "1000"]);
    let ip = address(&husk, "one");
    assert!(matches!(ip, IpAddr::V4(ip) if ip.is_private()), "{ip}");
    assert!(husk.sh("one", "ip route").contains("default via"), "no default route");
    let hosts = husk.sh("one", "cat /etc/hosts");
    assert!(hosts.lines().any(|line| line.split_whitespace().eq([ip.to_string().as_str(), "one"])), "{hosts}");
    // It reaches the host's end of the bridge.
    let gateway: IpAddr = husk.sh("one", "ip route | awk '/default/{print $3}'").trim().parse().unwrap();
    let listener = TcpListener::bind((gateway, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello from the host").unwrap());
    assert_eq!(husk.sh("one", &format!("nc -w 60 {gateway} {port} </dev/null")), "hello from the host");
    host.join().unwrap();
    let inspect = husk.run(&["pod", "inspect", "one"]).success().json();
    assert_eq!(inspect[0]["IPs"][0], ip.to_string().as_str(), "{inspect:#}");
    husk.ok(&["rm", "-f", "one"]);
}

#[test]
fn pods_reach_each_other_and_the_host_reaches_them() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--network", "bridge", "--name", "server", "-h", "server", "busybox", "sh", "-c", SERVER]);
    let ip = address(&husk, "server");
    assert_eq!(said((ip, 8080)), "server");
    let ask = format!("until nc -w 20 {ip} 8080; do sleep 1; done");
    assert_eq!(husk.ok(&["run", "--rm", "--network", "bridge", "busybox", "sh", "-c", &ask]), "server");
    husk.ok(&["rm", "-f", "server"]);
}

#[test]
fn a_published_port_of_the_host_leads_to_the_pod() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "web", "-h", "web", "-p", "18080:8080", "busybox", "sh", "-c", SERVER]);
    let gateway = husk.sh("web", "ip route | awk '/default/{print $3}'").trim().parse().unwrap();
    assert_eq!(said((gateway, 18080)), "web");
    assert_eq!(said(("127.0.0.1".parse().unwrap(), 18080)), "web");
    assert!(husk.ok(&["ps"]).contains("0.0.0.0:18080->8080/tcp"));
    husk.ok(&["rm", "-f", "web"]);
    assert!(TcpStream::connect_timeout(&(gateway, 18080).into(), Duration::from_secs(2)).is_err());
}

#[test]
fn names_are_those_of_the_flags() {
    let husk = Husk::new();
    let flags = ["--dns", "192.0.2.53", "--dns-search", "a.example", "--add-host", "db:192.0.2.7"];
    let command =
        [&["run", "--rm", "--network", "bridge"], &flags[..], &["busybox", "cat", "/etc/resolv.conf", "/etc/hosts"]]
            .concat();
    let files = husk.ok(&command);
    for line in ["nameserver 192.0.2.53", "search a.example", "192.0.2.7\tdb"] {
        assert!(files.lines().any(|l| l == line), "{line} is not in\n{files}");
    }
}

#[test]
fn address_and_mac_may_be_chosen() {
    let husk = Husk::new();
    let flags = ["--ip", "10.119.0.77", "--ip6", "fd68:7573:6b00::77", "--mac-address", "02:00:00:00:00:4d"];
    let command = [&["run", "--rm"], &flags[..], &["busybox", "ip", "addr", "show", "eth0"]].concat();
    let link = husk.ok(&command);
    for word in ["10.119.0.77/16", "fd68:7573:6b00::77/64", "02:00:00:00:00:4d", "fe80::ff:fe00:4d/64"] {
        assert!(link.contains(word), "{word} is not in\n{link}");
    }
    assert!(!link.contains("tentative") && !link.contains("dadfailed"), "{link}");
}

#[test]
fn a_pod_has_the_built_in_network_by_default() {
    let mut husk = Husk::new();
    husk.set("HUSK_NETWORK", "");
    let addresses = husk.ok(&["run", "--rm", "busybox", "ip", "addr", "show", "eth0"]);
    assert!(addresses.contains("inet 10.119.") && addresses.contains("inet6 fd68:7573:6b00::"), "{addresses}");
    husk.set("HUSK_CNI_BIN_DIRS", "/nonexistent");
    husk.run(&["run", "--rm", "busybox", "true"]).fails_saying(&["containernetworking-plugins", "--network none"]);
}

#[test]
fn without_a_network_there_is_loopback_alone() {
    let husk = Husk::new();
    let links = husk.ok(&["run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net"]);
    assert!(!links.contains("eth0") && links.contains("lo"), "{links}");
}

#[test]
fn sixteen_mebibytes_arrive_over_tcp_as_they_were_sent() {
    let husk = Husk::new();
    let script = "nc -l -p 9000 | sha256sum";
    husk.ok(&["run", "-d", "--network", "bridge", "--name", "sink", "busybox", "sh", "-c", script]);
    let ip = address(&husk, "sink");
    let data: Vec<u8> = (0..4_u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut stream = wait_for("the pod to listen", 10, || {
        TcpStream::connect_timeout(&(ip, 9000).into(), Duration::from_secs(2)).ok()
    });
    stream.write_all(&data).unwrap();
    drop(stream);
    let expected = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&data));
    husk.wait_for_log("sink", &expected);
    husk.ok(&["rm", "-f", "sink"]);
}

#[test]
fn a_removed_pod_gives_its_address_back() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--network", "bridge", "--name", "dead", "busybox", "sleep", "1000"]);
    let ip = address(&husk, "dead");
    husk.ok(&["rm", "-f", "dead"]);
    let again = husk.ok(&["run", "--rm", "--ip", &ip.to_string(), "busybox", "ip", "-4", "addr", "show", "eth0"]);
    assert!(again.contains(&ip.to_string()), "{again}");
}

#[test]
fn a_manifest_publishes_its_host_port() {
    let husk = Husk::new();
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  hostAliases: [{ip: 192.0.2.9, hostnames: [db]}]\n  \
                    containers:\n    - name: app\n      image: busybox\n      \
                    command: [sh, -c, 'while :; do hostname | nc -l -p 8080; done']\n      \
                    ports: [{containerPort: 8080, hostPort: 18081}]\n";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pod.yaml");
    std::fs::write(&file, manifest).unwrap();
    let file = file.to_string_lossy();
    husk.ok(&["kube", "play", &file]);
    assert_eq!(said(("127.0.0.1".parse().unwrap(), 18081)), "web");
    assert!(husk.sh("web-app", "cat /etc/hosts").contains("192.0.2.9\tdb"));
    husk.ok(&["kube", "down", &file]);
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let husk = Husk::new();
    husk.run(&["run", "--rm", "--network", "host", "busybox", "true"]).fails_saying(&["--network host", "-p"]);
    husk.run(&["run", "--rm", "--network", "no-such-net", "busybox", "true"])
        .fails_saying(&["no-such-net", "/etc/cni/net.d"]);
    husk.run(&["run", "--rm", "-p", "80", "busybox", "true"]).fails_saying(&["-p 80", "8080:80"]);
    husk.run(&["run", "--rm", "-p", "[::1]:80:80", "busybox", "true"]).fails_saying(&["[::1]", "127.0.0.1"]);
    husk.run(&["run", "--rm", "--ip", "192.0.2.1", "busybox", "true"]).fails_saying(&["192.0.2.1"]);
}

/// A network of the bridge plugin and then of one that is this script, with what finds both.
struct Chain(tempfile::TempDir);

impl Chain {
    fn ending_in(husk: &mut Husk, script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let list = serde_json::json!({ "cniVersion": "1.0.0", "name": "chain", "plugins": [
            { "type": "bridge", "bridge": "husk0", "isGateway": true, "ipMasq": true, "ipam": {
                "type": "host-local", "ranges": [[{ "subnet": "10.119.0.0/16" }], [{ "subnet": "fd68:7573:6b00::/64" }]],
            }},
            { "type": "portmap", "capabilities": { "portMappings": true } },
            { "type": "last" },
        ]});
        std::fs::write(directory.path().join("10-chain.conflist"), list.to_string()).unwrap();
        let plugin = directory.path().join("last");
        std::fs::write(&plugin, format!("#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\n{script}\n")).unwrap();
        std::fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        husk.set("HUSK_CNI_CONFIG_DIRS", directory.path());
        husk.set("HUSK_CNI_BIN_DIRS", format!("/usr/lib/cni:{}", directory.path().display()));
        Self(directory)
    }

    /// The files that only this network has: addresses and their notes, which its plugins keep by its name.
    fn forget(self) {
        drop(std::fs::remove_dir_all("/var/lib/cni/networks/chain"));
        drop(self.0);
    }
}

const IN_CHAIN: [&str; 7] = ["run", "--rm", "--network", "chain", "-p", "18090:80", "busybox"];

#[test]
fn a_plugin_that_fails_half_way_leaves_nothing_of_those_before_it() {
    let mut husk = Husk::new();
    let chain = Chain::ending_in(&mut husk, r#"echo '{"code": 100, "msg": "the switch is full"}'; exit 1"#);
    husk.run(&[&IN_CHAIN[..], &["true"]].concat()).fails_saying(&[
        "plugin last of network chain",
        "ADD failed",
        "the switch is full",
    ]);
    husk.leaves_nothing();
    chain.forget();
}

#[test]
fn an_interface_that_no_plugin_left_is_missed_and_nothing_stays() {
    let mut husk = Husk::new();
    // It takes away what the others made, and answers what they answered.
    let script = "jq -c .prevResult; exec nsenter --net=$CNI_NETNS ip link del eth0";
    let chain = Chain::ending_in(&mut husk, script);
    husk.run(&[&IN_CHAIN[..], &["true"]].concat()).fails_saying(&["no interface eth0"]);
    husk.leaves_nothing();
    chain.forget();
}

#[test]
fn a_pod_whose_interface_is_taken_away_runs_on_and_leaves_nothing() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--network", "bridge", "-p", "18091:8080", "--name", "cut", "busybox", "sleep", "1000"]);
    let gateway: IpAddr = husk.sh("cut", "ip route | awk '/default/{print $3}'").trim().parse().unwrap();
    let listener = TcpListener::bind((gateway, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let reach = |patience: u32| {
        husk.run(&["exec", "cut", "sh", "-c", &format!("nc -w {patience} {gateway} {port} </dev/null")])
    };
    let host = std::thread::spawn(move || drop(listener.accept().unwrap()));
    drop(reach(60).success());
    host.join().unwrap();
    let netns = format!("husk-{}", husk.inspect("cut")["Id"].as_str().unwrap());
    let removed = Command::new("ip").args(["-n", &netns, "link", "del", "eth0"]).status().unwrap();
    assert!(removed.success());
    drop(reach(2).exits(1));
    assert_eq!(husk.sh("cut", "echo alive"), "alive");
    husk.ok(&["rm", "-f", "cut"]);
}

#[test]
fn a_pod_whose_namespace_lost_its_name_leaves_nothing() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--network", "bridge", "--name", "lost", "busybox", "sleep", "1000"]);
    let netns = format!("husk-{}", husk.inspect("lost")["Id"].as_str().unwrap());
    assert!(Command::new("ip").args(["netns", "del", &netns]).status().unwrap().success());
    assert_eq!(husk.sh("lost", "echo alive"), "alive");
    husk.ok(&["rm", "-f", "lost"]);
}

#[test]
fn check_finds_the_plugins_or_says_what_to_install() {
    let mut husk = Husk::new();
    let row = |husk: &Husk| {
        let rows = husk.run(&["check", "--format", "json"]).success().json();
        let found = rows.as_array().unwrap().iter().find(|row| row["What"] == "CNI plugins").cloned();
        found.unwrap_or_else(|| panic!("{rows:#}"))
    };
    let found = row(&husk);
    assert!(found["Found"].as_str().unwrap().ends_with("in /usr/lib/cni (CNI 1.0.0)"), "{found:#}");
    husk.set("HUSK_CNI_BIN_DIRS", "/nonexistent");
    let missing = row(&husk);
    assert_eq!((&missing["Ok"], &missing["Required"]), (&false.into(), &false.into()));
    assert!(missing["Error"].as_str().unwrap().contains("install the package containernetworking-plugins"));
}

#[test]
fn a_machine_without_plugins_is_told_what_to_install() {
    let mut husk = Husk::new();
    husk.set("HUSK_CNI_BIN_DIRS", "/nonexistent");
    husk.run(&["run", "--rm", "--network", "bridge", "busybox", "true"]).fails_saying(&[
        "bridge",
        "/nonexistent",
        "containernetworking-plugins",
        "--network none",
    ]);
    assert_eq!(husk.ok(&["run", "--rm", "--network", "none", "busybox", "echo", "alone"]), "alone");
}
