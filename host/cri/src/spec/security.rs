//! What confines a container.

use husk_spec::capabilities::{self, Base, Change};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, LinuxIdMapping, LinuxIdMappingBuilder, LinuxSeccomp};

use crate::api::security_profile::ProfileType;
use crate::api::{
    IdMapping, LinuxContainerSecurityContext, NamespaceMode, SeLinuxOption, SecurityProfile, UserNamespace,
};
use crate::error::Error;

/// The largest profile that is read, in bytes.
const MAX_PROFILE: u64 = 8 << 20;

/// User ids, and group ids.
pub(super) type IdMaps = (Vec<LinuxIdMapping>, Vec<LinuxIdMapping>);

/// Refuses what no guest can enforce.
///
/// # Errors
///
/// [`Error::InvalidArgument`] with the field's name.
pub fn check_linux(context: &LinuxContainerSecurityContext) -> Result<(), Error> {
    refuse_labels(context.selinux_options.as_ref())?;
    apparmor(context)
}

/// The guest has no SELinux.
pub(super) fn refuse_labels(labels: Option<&SeLinuxOption>) -> Result<(), Error> {
    let Some(labels) = labels else { return Ok(()) };
    let set = [&labels.user, &labels.role, &labels.r#type, &labels.level].into_iter().any(|part| !part.is_empty());
    if set {
        return Err(Error::InvalidArgument(
            "selinux_options: the guest's kernel has no SELinux; remove seLinuxOptions from the pod".into(),
        ));
    }
    Ok(())
}

/// The guest has no AppArmor: of its profiles only none at all, or whatever the runtime's default is, can be had.
#[expect(deprecated, reason = "older kubelets say it so")]
fn apparmor(context: &LinuxContainerSecurityContext) -> Result<(), Error> {
    let named = match &context.apparmor {
        Some(profile) => (profile.profile_type == i32::from(ProfileType::Localhost)).then_some(&profile.localhost_ref),
        None => Some(&context.apparmor_profile).filter(|name| name.starts_with("localhost/")),
    };
    match named {
        Some(name) => Err(Error::InvalidArgument(format!(
            "apparmor profile {name:?}: profiles are loaded on the node, and the guest's kernel has no AppArmor; remove \
             the profile from the pod"
        ))),
        None => Ok(()),
    }
}

/// Capability sets.
///
/// # Errors
///
/// A name that is no capability.
pub(super) fn capabilities(context: &LinuxContainerSecurityContext, uid: u32) -> Result<LinuxCapabilities, Error> {
    let wanted = context.capabilities.clone().unwrap_or_default();
    let change = Change {
        add: &wanted.add_capabilities,
        drop: &wanted.drop_capabilities,
        ambient: &wanted.add_ambient_capabilities,
    };
    let base = if context.privileged { Base::Privileged } else { Base::Containerd };
    capabilities::sets(change, base, uid)
        .map_err(|name| Error::InvalidArgument(format!("capabilities: {name:?} is none (examples: NET_ADMIN, ALL)")))
}

/// The filter of system calls. Kubelet says in every case what it wants; that nothing is said means none, as in
/// containerd.
///
/// # Errors
///
/// A profile that cannot be read.
#[expect(deprecated, reason = "older kubelets say it so")]
pub(super) fn seccomp(
    context: &LinuxContainerSecurityContext,
    bounding: &Capabilities,
) -> Result<Option<LinuxSeccomp>, Error> {
    if context.privileged {
        return Ok(None);
    }
    let (kind, path) = match &context.seccomp {
        Some(SecurityProfile { profile_type, localhost_ref }) => {
            let kind = ProfileType::try_from(*profile_type).map_err(|_| {
                Error::InvalidArgument(format!("seccomp.profile_type = {profile_type}: there is no such type"))
            })?;
            (kind, localhost_ref.as_str())
        }
        None => match context.seccomp_profile_path.as_str() {
            "" | "unconfined" => (ProfileType::Unconfined, ""),
            "runtime/default" | "docker/default" => (ProfileType::RuntimeDefault, ""),
            path => (ProfileType::Localhost, path),
        },
    };
    match kind {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => Ok(Some(husk_seccomp::runtime_default(bounding))),
        ProfileType::Localhost => profile(path.strip_prefix("localhost/").unwrap_or(path), bounding).map(Some),
    }
}

fn profile(path: &str, bounding: &Capabilities) -> Result<LinuxSeccomp, Error> {
    let refused = |why: String| Error::InvalidArgument(format!("seccomp profile {path:?}: {why}"));
    if !path.starts_with('/') {
        return Err(refused("it must be an absolute path of the node".into()));
    }
    let length = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?.len();
    if length > MAX_PROFILE {
        return Err(refused(format!("it has {length} bytes; at most {MAX_PROFILE} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    husk_seccomp::from_file(&text, bounding).map_err(|error| refused(error.to_string()))
}

/// The mappings of the pod's user namespace; `None`: it has none of its own.
///
/// # Errors
///
/// [`Error::InvalidArgument`]: what containerd refuses as well (`internal/cri/opts`, "user namespaces").
pub(super) fn user_namespace(options: Option<&UserNamespace>) -> Result<Option<IdMaps>, Error> {
    let Some(options) = options else { return Ok(None) };
    let refused = |why: &str| Err(Error::InvalidArgument(format!("userns_options: {why}")));
    match super::mode("userns_options.mode", options.mode)? {
        NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(None),
        NamespaceMode::Node => refused("mode NODE has mappings; it must have none"),
        NamespaceMode::Pod => match (options.uids.as_slice(), options.gids.as_slice()) {
            ([uids], [gids]) => {
                if uids != gids {
                    return refused("the mappings of users and groups differ; they must be the same");
                }
                Ok(Some((vec![mapping(uids)?], vec![mapping(gids)?])))
            }
            _ => refused("mode POD must have one mapping of users and one of groups"),
        },
        NamespaceMode::Container | NamespaceMode::Target => refused("mode must be POD or NODE"),
    }
}

fn mapping(map: &IdMapping) -> Result<LinuxIdMapping, Error> {
    let refused = |why: &str| Error::InvalidArgument(format!("userns_options: {why}"));
    if map.container_id != 0 || map.length == 0 {
        return Err(refused("a mapping must begin with id 0 of the container and have a length"));
    }
    if map.host_id.checked_add(map.length).is_none() {
        return Err(refused("a mapping ends beyond the largest id"));
    }
    id_mapping(map).ok_or_else(|| refused("a mapping is not complete"))
}

pub(super) fn id_mapping(map: &IdMapping) -> Option<LinuxIdMapping> {
    let builder = LinuxIdMappingBuilder::default();
    builder.container_id(map.container_id).host_id(map.host_id).size(map.length).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(container_id: u32, length: u32) -> IdMapping {
        IdMapping { host_id: 1000, container_id, length }
    }

    fn namespace(mode: NamespaceMode, maps: &[IdMapping]) -> UserNamespace {
        UserNamespace { mode: mode.into(), uids: maps.to_vec(), gids: maps.to_vec() }
    }

    #[test]
    fn a_pods_user_namespace_has_one_mapping_from_id_0_on() {
        let ok = user_namespace(Some(&namespace(NamespaceMode::Pod, &[map(0, 100_000)]))).unwrap().unwrap();
        assert_eq!(ok.0[0].size(), 100_000);
        assert_eq!(user_namespace(Some(&namespace(NamespaceMode::Node, &[]))).unwrap(), None);
        for (mode, maps) in [
            (NamespaceMode::Pod, vec![]),
            (NamespaceMode::Pod, vec![map(0, 1), map(1, 1)]),
            (NamespaceMode::Pod, vec![map(1, 100)]),
            (NamespaceMode::Pod, vec![map(0, 0)]),
            (NamespaceMode::Pod, vec![map(0, u32::MAX)]),
            (NamespaceMode::Node, vec![map(0, 1)]),
            (NamespaceMode::Container, vec![map(0, 1)]),
            (NamespaceMode::Target, vec![map(0, 1)]),
        ] {
            assert!(user_namespace(Some(&namespace(mode, &maps))).is_err(), "{mode:?} {maps:?}");
        }
        let differ = UserNamespace { gids: vec![map(0, 1)], ..namespace(NamespaceMode::Pod, &[map(0, 2)]) };
        assert!(user_namespace(Some(&differ)).is_err());
    }

    #[test]
    fn profiles_of_modules_that_the_guest_has_not_are_refused() {
        let apparmor = SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref: "x".into() };
        let context =
            LinuxContainerSecurityContext { apparmor: Some(apparmor), ..LinuxContainerSecurityContext::default() };
        assert!(check_linux(&context).unwrap_err().to_string().contains("AppArmor"));
        let labels = SeLinuxOption { level: "s0:c1".into(), ..SeLinuxOption::default() };
        let context =
            LinuxContainerSecurityContext { selinux_options: Some(labels), ..LinuxContainerSecurityContext::default() };
        assert!(check_linux(&context).unwrap_err().to_string().contains("SELinux"));
        assert!(check_linux(&LinuxContainerSecurityContext::default()).is_ok());
    }

    #[test]
    fn a_container_that_says_nothing_has_no_filter() {
        let none = Capabilities::new();
        let mut context = LinuxContainerSecurityContext::default();
        assert_eq!(seccomp(&context, &none).unwrap(), None);
        context.seccomp =
            Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..SecurityProfile::default() });
        assert!(seccomp(&context, &none).unwrap().is_some());
        context.seccomp = Some(SecurityProfile {
            profile_type: ProfileType::Localhost.into(),
            localhost_ref: "localhost//not/there.json".into(),
        });
        assert!(seccomp(&context, &none).unwrap_err().to_string().contains("/not/there.json"));
        context.privileged = true;
        assert_eq!(seccomp(&context, &none).unwrap(), None);
    }
}
