//! `linux.devices` and `linux.resources.devices`.
//!
//! A container gets the default devices of the OCI runtime specification, and those block devices of the host that its
//! spec both lists and allows. Nothing else exists in the guest but the pod's own disks, which are not its business.

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

/// A device of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PlannedDevice {
    /// One that the guest's kernel has by itself, maybe under another name.
    Node(v1::DeviceNode),
    Block(BlockDevice),
}

/// A block device of the host, which gets a slot in the VM. Its node has no numbers yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlockDevice {
    pub(crate) node: v1::DeviceNode,
    /// On the host.
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) read_only: bool,
}

/// Devices beyond the default ones: those again under other names, and block devices of the host that `rules` allow.
pub(crate) fn nodes(devices: &[LinuxDevice], rules: &[LinuxDeviceCgroup]) -> Result<Vec<PlannedDevice>, SpecError> {
    devices.iter().map(|device| node(device, rules)).collect()
}

fn node(device: &LinuxDevice, rules: &[LinuxDeviceCgroup]) -> Result<PlannedDevice, SpecError> {
    let path = path_text("linux.devices", device.path())?;
    let field = format!("linux.devices[{}]", super::shown(path));
    let numbers = (device.major(), device.minor());
    let is_block = device.typ() == LinuxDeviceType::B;
    let is_char = matches!(device.typ(), LinuxDeviceType::C | LinuxDeviceType::U);
    if !is_block && (!is_char || !DEFAULT_DEVICES.contains(&numbers)) {
        let value = format!("{} {}:{}", device.typ().as_str(), numbers.0, numbers.1);
        let why = "of the node's devices only block devices can be given to a VM; beside them there are the default \
                   character devices";
        return Err(SpecError::unsupported(field, value, why));
    }
    let number =
        |value: i64| u32::try_from(value).map_err(|_| SpecError::invalid(&field, value.to_string(), "negative"));
    let (major, minor) = (number(numbers.0)?, number(numbers.1)?);
    // Some clients put the file type's bits in, as stat(2) gives them.
    let permissions = device.file_mode().unwrap_or(if is_block { 0o660 } else { 0o666 }) & 0o7777;
    let node = v1::DeviceNode {
        path: container_path(&field, path)?,
        mode: permissions,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        ..v1::DeviceNode::default()
    };
    if !is_block {
        return Ok(PlannedDevice::Node(v1::DeviceNode { r#type: "c".into(), major, minor, ..node }));
    }
    // Nothing of the node's is given by mistake: the rules must name it, too.
    let rule = rules.iter().rev().find(|rule| is_for_block(rule, numbers)).filter(|rule| rule.allow());
    let access = rule.map(|rule| rule.access().as_deref().unwrap_or("rwm"));
    let Some(access) = access.filter(|access| access.contains('r')) else {
        let why = "no rule of linux.resources.devices allows to read this very block device";
        return Err(SpecError::invalid(field, format!("b {major}:{minor}"), why));
    };
    Ok(PlannedDevice::Block(BlockDevice { node, major, minor, read_only: !access.contains('w') }))
}

/// Numbers of the block devices that are asked for.
pub(crate) fn block_numbers(devices: &[LinuxDevice]) -> Vec<(i64, i64)> {
    let blocks = devices.iter().filter(|device| device.typ() == LinuxDeviceType::B);
    blocks.map(|device| (device.major(), device.minor())).collect()
}

/// Checks that the rules ask for no more than the agent gives: everything denied but the default devices and `blocks`, or
/// all that the guest has for containers.
pub(crate) fn check_rules(rules: &[LinuxDeviceCgroup], blocks: &[(i64, i64)]) -> Result<(), SpecError> {
    let given = |rule: &LinuxDeviceCgroup| blocks.iter().any(|numbers| is_for_block(rule, *numbers));
    match rules.iter().find(|rule| rule.allow() && !is_for_all(rule) && !is_default(rule) && !given(rule)) {
        Some(rule) => {
            let why = "only the default devices and those of linux.devices can be allowed; the guest's other devices \
                       belong to the pod's VM";
            Err(SpecError::unsupported("linux.resources.devices", format!("allow {rule}"), why))
        }
        None => Ok(()),
    }
}

/// Whether the rules allow everything, as those of a privileged container do. It is then given what the guest has for
/// containers, which never includes the pod's own disks.
pub(crate) fn all_allowed(rules: &[LinuxDeviceCgroup]) -> Result<bool, SpecError> {
    let Some(at) = rules.iter().rposition(is_for_all) else { return Ok(false) };
    let mut rest = rules.iter().skip(at);
    if !rest.next().is_some_and(LinuxDeviceCgroup::allow) {
        return Ok(false);
    }
    match rest.find(|rule| !rule.allow()) {
        Some(rule) => {
            let why = "after a rule that allows all devices none can be taken away; allow those that are needed";
            Err(SpecError::unsupported("linux.resources.devices", format!("deny {rule}"), why))
        }
        None => Ok(true),
    }
}

/// Every device, for everything.
fn is_for_all(rule: &LinuxDeviceCgroup) -> bool {
    let any = |number: Option<i64>| number.is_none_or(|number| number == -1);
    rule.typ().is_none_or(|typ| typ == LinuxDeviceType::A)
        && any(rule.major())
        && any(rule.minor())
        && rule.access().as_deref().is_none_or(|access| ['r', 'w', 'm'].iter().all(|one| access.contains(*one)))
}

fn is_for_block(rule: &LinuxDeviceCgroup, (major, minor): (i64, i64)) -> bool {
    rule.typ() == Some(LinuxDeviceType::B) && rule.major() == Some(major) && rule.minor() == Some(minor)
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

    fn parse_nodes(list: Value, rules: Value) -> Result<Vec<PlannedDevice>, SpecError> {
        let devices = serde_json::from_value::<Vec<LinuxDevice>>(list).unwrap();
        nodes(&devices, &serde_json::from_value::<Vec<LinuxDeviceCgroup>>(rules).unwrap())
    }

    fn parse_rules(list: Value) -> Result<(), SpecError> {
        check_rules(&serde_json::from_value::<Vec<LinuxDeviceCgroup>>(list).unwrap(), &[(7, 1)])
    }

    #[test]
    fn a_default_device_under_another_name_is_made() {
        let device = json!([{"path": "/dev/nothing", "type": "c", "major": 1, "minor": 3, "fileMode": 8630}]);
        let nodes = parse_nodes(device, json!([])).unwrap();
        let Some(PlannedDevice::Node(node)) = nodes.first() else { panic!("{nodes:?}") };
        assert_eq!((node.path.as_str(), node.major, node.minor, node.mode), ("/dev/nothing", 1, 3, 0o666));
    }

    #[test]
    fn a_block_device_must_be_allowed_by_name() {
        let device = json!([{"path": "/dev/data", "type": "b", "major": 7, "minor": 1}]);
        let rule = |access: &str| json!([{"allow": true, "type": "b", "major": 7, "minor": 1, "access": access}]);
        for (access, read_only) in [("rwm", false), ("rw", false), ("r", true), ("rm", true)] {
            let nodes = parse_nodes(device.clone(), rule(access)).unwrap();
            let Some(PlannedDevice::Block(block)) = nodes.first() else { panic!("{nodes:?}") };
            assert_eq!((block.major, block.minor, block.read_only), (7, 1, read_only), "{access}");
        }
        for rules in [
            json!([]),
            rule("m"),
            json!([{"allow": true, "access": "rwm"}]),
            json!([{"allow": true, "type": "b", "major": 7, "minor": 1, "access": "rwm"},
                   {"allow": false, "type": "b", "major": 7, "minor": 1, "access": "rwm"}]),
        ] {
            assert_eq!(parse_nodes(device.clone(), rules).unwrap_err().field(), "linux.devices[/dev/data]");
        }
    }

    #[test]
    fn devices_of_the_node_are_refused() {
        for device in [
            json!({"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}),
            json!({"path": "/dev/bad", "type": "b", "major": -1, "minor": 3}),
        ] {
            let path = device["path"].as_str().unwrap().to_owned();
            let error = parse_nodes(json!([device]), json!([])).unwrap_err();
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
            {"allow": true, "type": "b", "major": 7, "minor": 1, "access": "rwm"},
        ]))
        .unwrap();
    }

    #[test]
    fn a_privileged_container_is_allowed_what_the_guest_gives() {
        let all = |rules: serde_json::Value| {
            let rules: Vec<LinuxDeviceCgroup> = serde_json::from_value(rules).unwrap();
            all_allowed(&rules)
        };
        let (everything, nothing) = (json!({"allow": true, "access": "rwm"}), json!({"allow": false, "access": "rwm"}));
        parse_rules(json!([everything])).unwrap();
        assert!(all(json!([nothing, everything])).unwrap());
        assert!(all(json!([{"allow": true, "type": "a", "major": -1, "minor": -1, "access": "rwm"}])).unwrap());
        assert!(!all(json!([everything, nothing])).unwrap());
        assert!(!all(json!([{"allow": true, "type": "c", "access": "rwm"}])).unwrap());
        let denied = json!({"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"});
        assert_eq!(all(json!([everything, denied])).unwrap_err().field(), "linux.resources.devices");
    }

    #[test]
    fn a_whole_class_of_disks_is_refused() {
        assert!(parse_rules(json!([{"allow": true, "type": "b", "major": 254, "access": "rwm"}])).is_err());
        assert!(parse_rules(json!([{"allow": true, "type": "b", "access": "rm"}])).is_err());
    }
}
