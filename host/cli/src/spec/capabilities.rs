//! Capability sets, as podman and Kubernetes compute them.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::pods::plan::CapabilityPlan;

/// What root in a container may do by default: podman's list. MKNOD, NET_RAW and AUDIT_WRITE, which Docker adds, are
/// not in it.
const DEFAULT: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Every capability of Linux 6.12 (include/uapi/linux/capability.h), for ALL.
const ALL: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// What not even a privileged container has unless it is added by name: each leads to what is the agent's alone.
const KEPT: [&str; 2] = [
    // File handles lead from any file of the scratch disk to every other, and out of the container's control group.
    "DAC_READ_SEARCH",
    // Ports of the virtual machine, and the registers of its processors.
    "SYS_RAWIO",
];

/// `ALL`, or a capability's name with or without `CAP_`, in any case.
pub(crate) fn is_known(name: &str) -> bool {
    let name = canonical(name);
    name == "ALL" || ALL.contains(&name.as_str())
}

fn canonical(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
}

/// The names that remain: the default ones, less those dropped, plus those added. Adding ALL begins from all, dropping
/// ALL from none; a name both added and dropped is added when ALL is dropped, dropped otherwise. A privileged container
/// begins from all but [`KEPT`].
///
/// # Errors
///
/// The first name that is no capability.
fn wanted(plan: &CapabilityPlan, privileged: bool) -> Result<BTreeSet<String>, String> {
    if let Some(unknown) = plan.add.iter().chain(&plan.drop).find(|name| !is_known(name)) {
        return Err(unknown.clone());
    }
    let add: BTreeSet<_> = plan.add.iter().map(|n| canonical(n)).collect();
    let drop: BTreeSet<_> = plan.drop.iter().map(|n| canonical(n)).collect();
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    if drop.contains("ALL") {
        return Ok(if add.contains("ALL") { owned(&ALL) } else { add });
    }
    let base = match (add.contains("ALL"), privileged) {
        (true, _) => owned(&ALL),
        (false, true) => owned(&ALL).into_iter().filter(|name| !KEPT.contains(&name.as_str())).collect(),
        (false, false) => owned(&DEFAULT),
    };
    Ok(base.union(&add).filter(|name| *name != "ALL" && !drop.contains(*name)).cloned().collect())
}

/// The sets of a container's init. A user other than root gets its capabilities only through files that carry them,
/// unless they were added by name: then they are ambient, so that a non-root server can bind port 80.
///
/// # Errors
///
/// The first name that is no capability.
pub(super) fn sets(plan: &CapabilityPlan, privileged: bool, uid: u32) -> Result<LinuxCapabilities, String> {
    let bounding = typed(&wanted(plan, privileged)?)?;
    let held: Capabilities = if uid == 0 {
        bounding.clone()
    } else {
        let added = plan.add.iter().map(|n| canonical(n)).filter(|n| n != "ALL").collect();
        typed(&added)?.intersection(&bounding).copied().collect()
    };
    let ambient = if uid == 0 { Capabilities::new() } else { held.clone() };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(bounding))
        .set_effective(Some(held.clone()))
        .set_permitted(Some(held))
        .set_inheritable(Some(ambient.clone()))
        .set_ambient(Some(ambient));
    Ok(sets)
}

fn typed(names: &BTreeSet<String>) -> Result<Capabilities, String> {
    names.iter().map(|name| Capability::from_str(name).map_err(|_| name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(add: &[&str], drop: &[&str]) -> CapabilityPlan {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        CapabilityPlan { add: owned(add), drop: owned(drop) }
    }

    #[test]
    fn every_name_of_the_kernel_has_a_type() {
        assert_eq!(typed(&wanted(&plan(&["all"], &[]), false).unwrap()).unwrap().len(), 41);
    }

    #[test]
    fn root_has_the_default_set_and_no_ambient_one() {
        let sets = sets(&plan(&[], &[]), false, 0).unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), DEFAULT.len());
        assert_eq!(sets.effective(), sets.bounding());
        assert!(sets.ambient().as_ref().unwrap().is_empty());
        assert!(!sets.bounding().as_ref().unwrap().contains(&Capability::Mknod));
    }

    #[test]
    fn another_user_holds_only_what_was_added_by_name() {
        let sets = sets(&plan(&["CAP_net_bind_service"], &["ALL"]), false, 1000).unwrap();
        let only: Capabilities = [Capability::NetBindService].into();
        for set in [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()] {
            assert_eq!(set.as_ref().unwrap(), &only);
        }
        let sets = super::sets(&plan(&[], &[]), false, 1000).unwrap();
        assert!(sets.effective().as_ref().unwrap().is_empty());
    }

    #[test]
    fn all_can_be_added_and_dropped() {
        assert_eq!(wanted(&plan(&["ALL"], &["SYS_ADMIN"]), false).unwrap().len(), 40);
        assert!(wanted(&plan(&[], &["ALL"]), false).unwrap().is_empty());
        assert_eq!(wanted(&plan(&["CHOWN"], &["CHOWN"]), false).unwrap().len(), DEFAULT.len() - 1);
        assert_eq!(wanted(&plan(&["FLY"], &[]), false), Err("FLY".to_owned()));
    }

    #[test]
    fn a_privileged_container_has_all_but_what_leads_to_the_agent() {
        let all = wanted(&plan(&[], &["SYS_TIME"]), true).unwrap();
        assert_eq!(all.len(), 38);
        assert!(!all.contains("SYS_RAWIO") && !all.contains("DAC_READ_SEARCH"));
        assert!(wanted(&plan(&["SYS_RAWIO"], &[]), true).unwrap().contains("SYS_RAWIO"));
        assert!(wanted(&plan(&[], &["ALL"]), true).unwrap().is_empty());
    }
}
