//! What a pod's /etc/resolv.conf and /etc/hosts say (resolv.conf(5), hosts(5)).

use std::fmt::Write as _;

use husk_spec::resolv::ResolvConf;

use super::plan::NetworkPlan;

/// resolv.conf of a pod: what was asked for, else, in a pod with a network, the host's.
pub(crate) fn resolv_conf(plan: &NetworkPlan) -> String {
    if plan.is_none() {
        return plan.dns.text();
    }
    plan.dns.or(ResolvConf::of_host()).text()
}

/// Further lines of /etc/hosts.
pub(crate) fn hosts(plan: &NetworkPlan) -> String {
    plan.hosts.iter().fold(String::new(), |mut text, (ip, name)| {
        let _ = writeln!(text, "{ip}\t{name}");
        text
    })
}
