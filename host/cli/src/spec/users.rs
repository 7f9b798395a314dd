//! A container's user namespace.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};

use crate::pods::plan::{IdRange, UsersPlan};

pub(super) fn apply(linux: &mut Linux, users: Option<&UsersPlan>) {
    let list = |ranges: &[IdRange]| ranges.iter().filter_map(mapping).collect::<Vec<_>>();
    if let Some(users) = users {
        linux.set_uid_mappings(Some(list(&users.uids))).set_gid_mappings(Some(list(&users.gids)));
    }
}

fn mapping(range: &IdRange) -> Option<LinuxIdMapping> {
    let builder = LinuxIdMappingBuilder::default().container_id(range.container).host_id(range.guest).size(range.size);
    builder.build().ok()
}

/// The user namespace that a container with this spec is in.
pub(crate) fn users_of(spec: &Spec) -> Option<UsersPlan> {
    let linux = spec.linux().as_ref()?;
    linux.namespaces().iter().flatten().find(|namespace| namespace.typ() == LinuxNamespaceType::User)?;
    let range =
        |map: &LinuxIdMapping| IdRange { container: map.container_id(), guest: map.host_id(), size: map.size() };
    let list = |maps: &Option<Vec<LinuxIdMapping>>| maps.iter().flatten().map(range).collect();
    Some(UsersPlan { uids: list(linux.uid_mappings()), gids: list(linux.gid_mappings()) })
}
