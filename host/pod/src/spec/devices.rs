//! `linux.devices` and `linux.resources.devices`.
//!
//! A container gets the default devices of the OCI runtime specification and no others: the guest has nothing else to
//! give but the pod's own disks, which are not the container's business.

use husk_agent_api::v1;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::{SpecError, container_path, path_text};

/// (major, minor) of the character devices that every container may have: config-linux.md, "Default Devices".
const DEFAULT_DEVICES: [(i64, i64); 8] = [
    (1, 3), // null
    (1, 5), // zero
    (1, 7), // full
    (1, 8), // random
    (1, 9), // urandom
    (5, 0), // tty
    (5, 1), // console
    (5, 2), // ptmx
];
/// Major number of the pseudo-terminals, `/dev/pts/N`.
const PTS_MAJOR: i64 = 136;

/// Nodes to be made beyond the default ones. Only default devices under other names can be.
pub(crate) fn nodes(devices: &[LinuxDevice]) -> Result<Vec<v1::DeviceNode>, SpecError> {
    devices.iter().map(node).collect()
}

fn node(device: &LinuxDevice) -> Result<v1::DeviceNode, SpecError> {
    let path = path_text("linux.devices", device.path())?;
    let field = format!("linux.devices[{}]", super::shown(path));
    let numbers = (device.major(), device.minor());
    let is_char = matches!(device.typ(), LinuxDeviceType::C | LinuxDeviceType::U);
    if !is_char || !DEFAULT_DEVICES.contains(&numbers) {
        let value = format!("{} {}:{}", device.typ().as_str(), numbers.0, numbers.1);
        let why = "devices of the node do not exist in the VM; only the default character devices do";
        return Err(SpecError::unsupported(field, value, why));
    }
    let number =
        |value: i64| u32::try_from(value).map_err(|_| SpecError::invalid(&field, value.to_string(), "negative"));
    let mode = device.file_mode().unwrap_or(0o666);
    // Some clients put the file type's bits in, as stat(2) gives them.
    let permissions = mode & 0o7777;
    Ok(v1::DeviceNode {
        path: container_path(&field, path)?,
        r#type: "c".into(),
        major: number(numbers.0)?,
        minor: number(numbers.1)?,
        mode: permissions,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// Checks that the rules ask for no more than the agent gives: everything denied but the default devices.
pub(crate) fn check_rules(rules: &[LinuxDeviceCgroup]) -> Result<(), SpecError> {
    match rules.iter().find(|rule| rule.allow() && !is_default(rule)) {
        Some(rule) => {
            let why = "only the default devices can be allowed; the guest's other devices belong to the pod's VM";
            Err(SpecError::unsupported("linux.resources.devices", format!("allow {rule}"), why))
        }
        None => Ok(()),
    }
}

fn is_default(rule: &LinuxDeviceCgroup) -> bool {
    let kind = rule.typ().unwrap_or(LinuxDeviceType::A);
    let only_mknod = rule.access().as_deref() == Some("m");
    match (kind, rule.major(), rule.minor()) {
        // A node may be made, but not opened: harmless, and part of every engine's defaults.
        (LinuxDeviceType::C | LinuxDeviceType::B, None, None) => only_mknod,
        (LinuxDeviceType::C, Some(PTS_MAJOR), _) => true,
        (LinuxDeviceType::C, Some(major), Some(minor)) => DEFAULT_DEVICES.contains(&(major, minor)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse_nodes(list: Value) -> Result<Vec<v1::DeviceNode>, SpecError> {
        nodes(&serde_json::from_value::<Vec<LinuxDevice>>(list).unwrap())
    }

    fn parse_rules(list: Value) -> Result<(), SpecError> {
        check_rules(&serde_json::from_value::<Vec<LinuxDeviceCgroup>>(list).unwrap())
    }

    #[test]
    fn a_default_device_under_another_name_is_made() {
        let nodes =
            parse_nodes(json!([{"path": "/dev/nothing", "type": "c", "major": 1, "minor": 3, "fileMode": 8630}]));
        let nodes = nodes.unwrap();
        let node = nodes.first().unwrap();
        assert_eq!((node.path.as_str(), node.major, node.minor, node.mode), ("/dev/nothing", 1, 3, 0o666));
    }

    #[test]
    fn devices_of_the_node_are_refused() {
        for device in [
            json!({"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}),
            json!({"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}),
            json!({"path": "/dev/bad", "type": "c", "major": -1, "minor": 3}),
        ] {
            let path = device["path"].as_str().unwrap().to_owned();
            let error = parse_nodes(json!([device])).unwrap_err();
            assert_eq!(error.field(), format!("linux.devices[{path}]"));
        }
    }

    #[test]
    fn the_default_rules_of_engines_are_accepted() {
        parse_rules(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "access": "m"},
            {"allow": true, "type": "b", "access": "m"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": true, "type": "c", "major": 136, "access": "rwm"},
            {"allow": true, "type": "c", "major": 5, "minor": 2, "access": "rwm"},
        ]))
        .unwrap();
    }

    #[test]
    fn a_privileged_container_or_a_disk_is_refused() {
        assert!(parse_rules(json!([{"allow": true, "access": "rwm"}])).is_err());
        assert!(parse_rules(json!([{"allow": true, "type": "b", "major": 254, "access": "rwm"}])).is_err());
        assert!(parse_rules(json!([{"allow": true, "type": "b", "access": "rm"}])).is_err());
    }
}
