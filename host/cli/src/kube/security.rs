//! The security contexts of pod and container: the container's own wins, field by field.

use k8s_openapi::api::core::v1::{PodSecurityContext, SeccompProfile, SecurityContext};

use super::convert::Problems;
use crate::pods::plan::{CapabilityPlan, ContainerPlan, SeccompPlan, UserPlan};
use husk_spec::capabilities;

/// The group that the pod's volumes are given to.
pub(super) fn fs_group(pod: Option<&PodSecurityContext>, problems: &mut Problems) -> Option<u32> {
    if let Some(policy) = pod.and_then(|c| c.fs_group_change_policy.as_deref())
        && !matches!(policy, "Always" | "OnRootMismatch")
    {
        let text = format!("\"{policy}\" is none of Always, OnRootMismatch");
        problems.add("spec.securityContext.fsGroupChangePolicy", text);
    }
    let group = pod?.fs_group?;
    let id = as_id(group);
    if id.is_none() {
        problems.add("spec.securityContext.fsGroup", format!("{group} is not between 0 and 2147483647"));
    }
    id
}

/// User and group ids as Kubernetes bounds them.
fn as_id(id: i64) -> Option<u32> {
    u32::try_from(id).ok().filter(|id| i32::try_from(*id).is_ok())
}

fn seccomp(profile: &SeccompProfile, path: &str, problems: &mut Problems) -> SeccompPlan {
    let name = profile.localhost_profile.as_deref();
    if profile.type_ != "Localhost" && name.is_some() {
        problems.add(&format!("{path}.localhostProfile"), "it is for profiles of type Localhost");
    }
    match (profile.type_.as_str(), name) {
        ("RuntimeDefault", _) => SeccompPlan::RuntimeDefault,
        ("Unconfined", _) => SeccompPlan::Unconfined,
        ("Localhost", Some(name)) => SeccompPlan::Localhost(name.to_owned()),
        ("Localhost", None) => {
            problems.add(&format!("{path}.localhostProfile"), "a profile of type Localhost needs it");
            SeccompPlan::RuntimeDefault
        }
        (other, _) => {
            let text = format!("\"{other}\" is none of RuntimeDefault, Localhost, Unconfined");
            problems.add(&format!("{path}.type"), text);
            SeccompPlan::RuntimeDefault
        }
    }
}

/// Writes what both contexts say into the container's plan.
pub(super) fn apply(
    plan: &mut ContainerPlan,
    pod: Option<&PodSecurityContext>,
    own: Option<&SecurityContext>,
    path: &str,
    problems: &mut Problems,
) {
    let user = own.and_then(|c| c.run_as_user).or_else(|| pod.and_then(|c| c.run_as_user));
    let group = own.and_then(|c| c.run_as_group).or_else(|| pod.and_then(|c| c.run_as_group));
    let non_root = own.and_then(|c| c.run_as_non_root).or_else(|| pod.and_then(|c| c.run_as_non_root));
    let groups = pod.and_then(|c| c.supplemental_groups.as_deref()).unwrap_or_default();
    // A pod's fsGroup is one of every process's groups.
    let fs_group = pod.and_then(|c| c.fs_group).and_then(as_id);
    let path = format!("{path}.securityContext");
    let mut id = |name: &str, id: i64| {
        let checked = as_id(id);
        if checked.is_none() {
            problems.add(&format!("{path}.{name}"), format!("{id} is not between 0 and 2147483647"));
        }
        checked
    };
    plan.user = UserPlan {
        user: user.and_then(|u| id("runAsUser", u)).map(|u| u.to_string()),
        group: group.and_then(|g| id("runAsGroup", g)).map(|g| g.to_string()),
        supplemental_groups: groups.iter().filter_map(|g| id("supplementalGroups", *g)).chain(fs_group).collect(),
        strict_groups: false,
        must_not_be_root: non_root.unwrap_or(false),
    };
    match pod.and_then(|c| c.supplemental_groups_policy.as_deref()) {
        None | Some("Merge") => {}
        Some("Strict") => plan.user.strict_groups = true,
        Some(other) => {
            let text = format!("\"{other}\" is none of Merge, Strict");
            problems.add("spec.securityContext.supplementalGroupsPolicy", text);
        }
    }
    let (profile, place) = match own.and_then(|c| c.seccomp_profile.as_ref()) {
        Some(profile) => (Some(profile), format!("{path}.seccompProfile")),
        None => (pod.and_then(|c| c.seccomp_profile.as_ref()), "spec.securityContext.seccompProfile".to_owned()),
    };
    plan.seccomp = profile.map_or(SeccompPlan::RuntimeDefault, |profile| seccomp(profile, &place, problems));
    if non_root == Some(true) && user == Some(0) {
        problems.add(&format!("{path}.runAsNonRoot"), "is true and runAsUser is 0: change one");
    }
    let Some(own) = own else { return };
    plan.read_only_rootfs = own.read_only_root_filesystem.unwrap_or(false);
    plan.no_new_privileges = own.allow_privilege_escalation == Some(false);
    plan.exposure.privileged = own.privileged == Some(true);
    if plan.exposure.privileged {
        if plan.no_new_privileges {
            problems.add(&format!("{path}.privileged"), "is true and allowPrivilegeEscalation is false: change one");
        }
        // As in Kubernetes, whatever profile is set.
        plan.seccomp = SeccompPlan::Unconfined;
    }
    match own.proc_mount.as_deref() {
        None | Some("Default") => {}
        Some("Unmasked") => plan.exposure.unmasked = true,
        Some(other) => {
            problems.add(&format!("{path}.procMount"), format!("\"{other}\" is none of Default, Unmasked"));
        }
    }
    if let Some(wanted) = &own.capabilities {
        let mut names = |kind: &str, list: Option<&Vec<String>>| -> Vec<String> {
            let list = list.map(Vec::as_slice).unwrap_or_default();
            for (index, name) in list.iter().enumerate() {
                if !capabilities::is_known(name) {
                    let text = format!("\"{name}\" is no capability (examples: NET_BIND_SERVICE, ALL)");
                    problems.add(&format!("{path}.capabilities.{kind}[{index}]"), text);
                }
            }
            list.to_vec()
        };
        plan.capabilities =
            CapabilityPlan { add: names("add", wanted.add.as_ref()), drop: names("drop", wanted.drop.as_ref()) };
    }
}
