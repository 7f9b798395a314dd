//! What a pod's /etc/resolv.conf says (resolv.conf(5)).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// systemd-resolved's own file, for a host whose /etc/resolv.conf names only its stub.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Name servers, search domains and options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvConf {
    pub servers: Vec<IpAddr>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl ResolvConf {
    /// The host's, without the name servers that only the host can reach.
    #[must_use]
    pub fn of_host() -> Self {
        let read = |path: &str| Self::parse(&std::fs::read_to_string(Path::new(path)).unwrap_or_default());
        let host = read("/etc/resolv.conf");
        if host.servers.is_empty() { read(RESOLVED) } else { host }
    }

    /// The host's file, without loopback name servers: they are the host's own.
    fn parse(text: &str) -> Self {
        let mut plan = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    plan.servers.extend(server.filter(|ip| !ip.is_loopback()));
                }
                // The last one counts.
                Some("search" | "domain") => plan.searches = words.map(str::to_owned).collect(),
                Some("options") => plan.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        plan
    }

    /// Each part that is empty is the other's.
    #[must_use]
    pub fn or(&self, other: Self) -> Self {
        fn either<T: Clone>(ours: &[T], theirs: Vec<T>) -> Vec<T> {
            if ours.is_empty() { theirs } else { ours.to_vec() }
        }
        Self {
            servers: either(&self.servers, other.servers),
            searches: either(&self.searches, other.searches),
            options: either(&self.options, other.options),
        }
    }

    /// The file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        for (key, words) in [("search", &self.searches), ("options", &self.options)] {
            if !words.is_empty() {
                let _ = writeln!(text, "{key} {}", words.join(" "));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.1\ndomain old\nsearch a.example b.example\noptions edns0\n";

    #[test]
    fn the_hosts_own_name_servers_are_left_out() {
        let text = ResolvConf::default().or(ResolvConf::parse(HOST)).text();
        assert_eq!(text, "nameserver 192.0.2.1\nsearch a.example b.example\noptions edns0\n");
    }

    #[test]
    fn what_was_asked_for_replaces_the_hosts() {
        let asked = ResolvConf { servers: vec!["10.0.0.2".parse().unwrap()], ..ResolvConf::default() };
        assert_eq!(asked.or(ResolvConf::parse(HOST)).text().lines().next(), Some("nameserver 10.0.0.2"));
    }
}
