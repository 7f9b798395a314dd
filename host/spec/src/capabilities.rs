//! Capability sets, as podman and Kubernetes compute them.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

/// podman's default list.
const PODMAN: [&str; 11] = [
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

/// What Docker and containerd have beside them.
const CONTAINERD: [&str; 3] = ["AUDIT_WRITE", "MKNOD", "NET_RAW"];

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

/// From which capabilities a container begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// podman's default ones.
    Podman,
    /// containerd's default ones, which users of Kubernetes expect.
    Containerd,
    /// All but those that lead to what is the agent's alone.
    Privileged,
}

impl Base {
    fn names(self) -> BTreeSet<String> {
        match self {
            Self::Podman => owned(&PODMAN),
            Self::Containerd => owned(&PODMAN).union(&owned(&CONTAINERD)).cloned().collect(),
            Self::Privileged => owned(&ALL).into_iter().filter(|name| !KEPT.contains(&name.as_str())).collect(),
        }
    }
}

/// What differs from a [`Base`]: names with or without `CAP_`, in any case, or `ALL`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    pub add: &'a [String],
    pub drop: &'a [String],
    /// Those that a user other than root is to have, too, in so far as root has them.
    pub ambient: &'a [String],
}

fn owned(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// `ALL`, or a capability's name with or without `CAP_`, in any case.
#[must_use]
pub fn is_known(name: &str) -> bool {
    let name = canonical(name);
    name == "ALL" || ALL.contains(&name.as_str())
}

fn canonical(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
}

/// The names that remain: those of the base, less those dropped, plus those added. Adding ALL begins from all, dropping
/// ALL from none; a name both added and dropped is added when ALL is dropped, dropped otherwise.
///
/// # Errors
///
/// The first name that is no capability.
fn names(change: Change<'_>, base: Base) -> Result<BTreeSet<String>, String> {
    if let Some(unknown) = change.add.iter().chain(change.drop).find(|name| !is_known(name)) {
        return Err(unknown.clone());
    }
    let add: BTreeSet<_> = change.add.iter().map(|n| canonical(n)).collect();
    let drop: BTreeSet<_> = change.drop.iter().map(|n| canonical(n)).collect();
    if drop.contains("ALL") {
        return Ok(if add.contains("ALL") { owned(&ALL) } else { add });
    }
    let base = if add.contains("ALL") { owned(&ALL) } else { base.names() };
    Ok(base.union(&add).filter(|name| *name != "ALL" && !drop.contains(*name)).cloned().collect())
}

/// The sets of a container's init. A user other than root gets its capabilities only through files that carry them,
/// and those that are to be ambient, so that a non-root server can bind port 80.
///
/// # Errors
///
/// The first name that is no capability.
pub fn sets(change: Change<'_>, base: Base, uid: u32) -> Result<LinuxCapabilities, String> {
    let bounding = typed(&names(change, base)?)?;
    let held: Capabilities = if uid == 0 {
        bounding.clone()
    } else {
        let ambient = change.ambient.iter().map(|n| canonical(n)).filter(|n| n != "ALL").collect();
        typed(&ambient)?.intersection(&bounding).copied().collect()
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

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn names_of(add: &[&str], drop: &[&str], base: Base) -> Result<BTreeSet<String>, String> {
        names(Change { add: &owned(add), drop: &owned(drop), ambient: &[] }, base)
    }

    #[test]
    fn every_name_of_the_kernel_has_a_type() {
        assert_eq!(typed(&names_of(&["all"], &[], Base::Podman).unwrap()).unwrap().len(), 41);
    }

    #[test]
    fn root_has_the_default_set_and_no_ambient_one() {
        let sets = sets(Change::default(), Base::Podman, 0).unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), PODMAN.len());
        assert_eq!(sets.effective(), sets.bounding());
        assert!(sets.ambient().as_ref().unwrap().is_empty());
        assert!(!sets.bounding().as_ref().unwrap().contains(&Capability::Mknod));
    }

    #[test]
    fn containerds_set_has_mknod_and_raw_sockets() {
        let names = names_of(&[], &[], Base::Containerd).unwrap();
        assert_eq!(names.len(), 14);
        assert!(names.contains("MKNOD") && names.contains("NET_RAW") && names.contains("AUDIT_WRITE"));
    }

    #[test]
    fn another_user_holds_only_what_is_ambient() {
        let (bind, all) = (owned(&["CAP_net_bind_service"]), owned(&["ALL"]));
        let change = Change { add: &bind, drop: &all, ambient: &bind };
        let only: Capabilities = [Capability::NetBindService].into();
        let ours = sets(change, Base::Podman, 1000).unwrap();
        for set in [ours.bounding(), ours.effective(), ours.permitted(), ours.inheritable(), ours.ambient()] {
            assert_eq!(set.as_ref().unwrap(), &only);
        }
        let without = sets(Change { ambient: &[], ..change }, Base::Containerd, 1000).unwrap();
        assert_eq!(without.bounding().as_ref().unwrap(), &only);
        assert!(without.effective().as_ref().unwrap().is_empty());
    }

    #[test]
    fn all_can_be_added_and_dropped() {
        assert_eq!(names_of(&["ALL"], &["SYS_ADMIN"], Base::Podman).unwrap().len(), 40);
        assert!(names_of(&[], &["ALL"], Base::Podman).unwrap().is_empty());
        assert_eq!(names_of(&["CHOWN"], &["CHOWN"], Base::Podman).unwrap().len(), PODMAN.len() - 1);
        assert_eq!(names_of(&["FLY"], &[], Base::Podman), Err("FLY".to_owned()));
    }

    #[test]
    fn a_privileged_container_has_all_but_what_leads_to_the_agent() {
        let all = names_of(&[], &["SYS_TIME"], Base::Privileged).unwrap();
        assert_eq!(all.len(), 38);
        assert!(!all.contains("SYS_RAWIO") && !all.contains("DAC_READ_SEARCH"));
        assert!(names_of(&["SYS_RAWIO"], &[], Base::Privileged).unwrap().contains("SYS_RAWIO"));
        assert!(names_of(&[], &["ALL"], Base::Privileged).unwrap().is_empty());
    }
}
