//! User namespaces and id-mapped mounts: `linux.namespaces[user]`, `linux.uidMappings`, `linux.gidMappings`, and the
//! mappings of a mount.
//!
//! The host has no part in them: "host" ids are the guest's. A pod has one user namespace for each set of mappings,
//! whether a container asks for a new one or, as under containerd, for the pod's by its path.

use husk_agent_api::v1;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::{SpecError, namespaces};

/// The kernel's `UID_GID_MAP_MAX_EXTENTS`.
const MAX_ENTRIES: usize = 340;

/// The ids of the container's user namespace; `None` in the guest's own.
pub(crate) fn user_namespace(linux: &Linux) -> Result<Option<v1::IdMaps>, SpecError> {
    let wanted = namespaces::find(linux.namespaces().as_deref().unwrap_or_default(), LinuxNamespaceType::User)?;
    let (uids, gids) = (linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref());
    match (wanted, id_maps("linux", uids, gids)?) {
        (None, None) => Ok(None),
        (Some(_), Some(maps)) => Ok(Some(maps)),
        (None, Some(_)) => {
            let why = "they belong to a user namespace; list one in linux.namespaces";
            Err(SpecError::invalid("linux.uidMappings", "(set)", why))
        }
        (Some(_), None) => {
            let why = "it needs linux.uidMappings and linux.gidMappings";
            Err(SpecError::invalid("linux.namespaces[user]", "(without mappings)", why))
        }
    }
}

/// Both lists, or neither.
pub(super) fn id_maps(
    field: &str,
    uids: Option<&[LinuxIdMapping]>,
    gids: Option<&[LinuxIdMapping]>,
) -> Result<Option<v1::IdMaps>, SpecError> {
    let maps = v1::IdMaps {
        uids: list(&format!("{field}.uidMappings"), uids.unwrap_or_default())?,
        gids: list(&format!("{field}.gidMappings"), gids.unwrap_or_default())?,
    };
    match (maps.uids.is_empty(), maps.gids.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(maps)),
        (true, false) => Err(SpecError::invalid(format!("{field}.uidMappings"), "[]", "gidMappings need them")),
        (false, true) => Err(SpecError::invalid(format!("{field}.gidMappings"), "[]", "uidMappings need them")),
    }
}

fn list(field: &str, mappings: &[LinuxIdMapping]) -> Result<Vec<v1::IdMap>, SpecError> {
    if mappings.len() > MAX_ENTRIES {
        let count = format!("{} entries", mappings.len());
        return Err(SpecError::invalid(field, count, "the kernel takes at most 340"));
    }
    let list: Vec<_> = mappings
        .iter()
        .map(|m| v1::IdMap { container_id: m.container_id(), host_id: m.host_id(), size: m.size() })
        .collect();
    let shown = |map: &v1::IdMap| format!("{}:{}:{}", map.container_id, map.host_id, map.size);
    // The last id of all means "no id".
    let ends = |map: &v1::IdMap| map.container_id.checked_add(map.size).zip(map.host_id.checked_add(map.size));
    if let Some(bad) = list.iter().find(|map| map.size == 0 || ends(map).is_none()) {
        return Err(SpecError::invalid(field, shown(bad), "its size is 0, or it ends above 4294967294"));
    }
    let overlap = |a: (u32, u32), b: (u32, u32)| a.0 < b.0.saturating_add(b.1) && b.0 < a.0.saturating_add(a.1);
    for (index, a) in list.iter().enumerate() {
        let clash = list.iter().take(index).find(|b| {
            overlap((a.container_id, a.size), (b.container_id, b.size))
                || overlap((a.host_id, a.size), (b.host_id, b.size))
        });
        if let Some(b) = clash {
            return Err(SpecError::invalid(field, shown(a), format!("it overlaps {}", shown(b))));
        }
    }
    if !list.is_empty() && !list.iter().any(|map| map.container_id == 0) {
        return Err(SpecError::unsupported(field, "(no id 0)", "a container is set up by its root; map its id 0"));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::testing;

    fn parse(user: bool, uids: Value, gids: Value) -> Result<Option<v1::IdMaps>, SpecError> {
        let mut json = testing::base();
        if user {
            json["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        }
        testing::set(&mut json, "/linux/uidMappings", uids);
        testing::set(&mut json, "/linux/gidMappings", gids);
        user_namespace(serde_json::from_value::<oci_spec::runtime::Spec>(json).unwrap().linux().as_ref().unwrap())
    }

    fn one(container: u32, host: u32, size: u32) -> Value {
        json!([{"containerID": container, "hostID": host, "size": size}])
    }

    #[test]
    fn a_user_namespace_has_both_mappings() {
        let maps = parse(true, one(0, 65536, 65536), one(0, 65536, 1000)).unwrap().unwrap();
        assert_eq!(maps.uids, [v1::IdMap { container_id: 0, host_id: 65536, size: 65536 }]);
        assert_eq!(maps.gids[0].size, 1000);
        assert_eq!(parse(false, json!([]), json!([])).unwrap(), None);
    }

    #[test]
    fn half_of_one_is_refused_by_name() {
        for (user, uids, gids, field) in [
            (true, json!([]), json!([]), "linux.namespaces[user]"),
            (true, one(0, 1, 1), json!([]), "linux.gidMappings"),
            (true, json!([]), one(0, 1, 1), "linux.uidMappings"),
            (false, one(0, 1, 1), one(0, 1, 1), "linux.uidMappings"),
        ] {
            assert_eq!(parse(user, uids, gids).unwrap_err().field(), field);
        }
    }

    #[test]
    fn impossible_mappings_are_refused() {
        let entry = |c: u32, h: u32, s: u32| json!({"containerID": c, "hostID": h, "size": s});
        for bad in [
            json!([entry(0, 0, 0)]),
            json!([entry(0, 1, u32::MAX)]),
            json!([entry(1, 0, u32::MAX)]),
            json!([entry(1, 1, 1)]),
            json!([entry(0, 0, 10), entry(9, 100, 1)]),
            json!([entry(0, 0, 10), entry(10, 9, 1)]),
            Value::Array((0..341).map(|n| entry(n, n, 1)).collect()),
        ] {
            assert_eq!(parse(true, bad, one(0, 0, 1)).unwrap_err().field(), "linux.uidMappings");
        }
        parse(true, json!([entry(0, 1, 1), entry(1, 0, 1)]), one(0, 0, u32::MAX)).unwrap();
    }

    proptest! {
        #[test]
        fn any_mappings_are_read_without_panic(entries: Vec<(u32, u32, u32)>) {
            let entries: Vec<_> =
                entries.into_iter().map(|(c, h, s)| json!({"containerID": c, "hostID": h, "size": s})).collect();
            let _ = parse(true, Value::Array(entries.clone()), Value::Array(entries));
        }
    }
}
