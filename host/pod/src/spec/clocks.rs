//! `linux.timeOffsets`: clocks of a container's own, in a time namespace.

use std::collections::HashMap;

use husk_agent_api::v1;
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxTimeOffset};

use super::{SpecError, namespaces};

/// `None`: the guest's clocks.
pub(crate) fn clocks(linux: &Linux) -> Result<Option<v1::ClockOffsets>, SpecError> {
    let wanted = namespaces::find(linux.namespaces().as_deref().unwrap_or_default(), LinuxNamespaceType::Time)?;
    let offsets = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty());
    match (wanted, offsets) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let why = "they belong to a time namespace; list one in linux.namespaces";
            Err(SpecError::invalid("linux.timeOffsets", "(set)", why))
        }
        (Some(namespace), _) if namespaces::path(namespace).is_some() => {
            let (field, value) = (namespaces::field(LinuxNamespaceType::Time), namespaces::shown_path(namespace));
            Err(SpecError::unsupported(field, value, "it must be a new one"))
        }
        (Some(_), None) => Ok(Some(v1::ClockOffsets::default())),
        (Some(_), Some(offsets)) => read(offsets).map(Some),
    }
}

fn read(offsets: &HashMap<String, LinuxTimeOffset>) -> Result<v1::ClockOffsets, SpecError> {
    let mut clocks = v1::ClockOffsets::default();
    for (name, offset) in offsets {
        let field = format!("linux.timeOffsets[{}]", super::shown(name));
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanoseconds > 999_999_999 {
            return Err(SpecError::invalid(field, nanoseconds.to_string(), "nanosecs has less than a second"));
        }
        let clock = match name.as_str() {
            "monotonic" => &mut clocks.monotonic,
            "boottime" => &mut clocks.boottime,
            _ => return Err(SpecError::invalid(field, "(set)", "the clocks are monotonic and boottime")),
        };
        *clock = Some(v1::ClockOffset { seconds, nanoseconds });
    }
    Ok(clocks)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::testing;

    fn parse(namespace: Option<Value>, offsets: Value) -> Result<Option<v1::ClockOffsets>, SpecError> {
        let mut json = testing::base();
        json["linux"]["namespaces"].as_array_mut().unwrap().extend(namespace);
        testing::set(&mut json, "/linux/timeOffsets", offsets);
        clocks(serde_json::from_value::<oci_spec::runtime::Spec>(json).unwrap().linux().as_ref().unwrap())
    }

    #[test]
    fn both_clocks_are_set() {
        let new = json!({"type": "time"});
        let offsets = json!({"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 86400}});
        let clocks = parse(Some(new.clone()), offsets).unwrap().unwrap();
        assert_eq!(clocks.monotonic, Some(v1::ClockOffset { seconds: -5, nanoseconds: 7 }));
        assert_eq!(clocks.boottime, Some(v1::ClockOffset { seconds: 86400, nanoseconds: 0 }));
        assert_eq!(parse(Some(new), json!({})).unwrap(), Some(v1::ClockOffsets::default()));
        assert_eq!(parse(None, json!({})).unwrap(), None);
    }

    #[test]
    fn what_no_clock_can_show_is_refused() {
        let new = || Some(json!({"type": "time"}));
        assert_eq!(parse(None, json!({"boottime": {"secs": 1}})).unwrap_err().field(), "linux.timeOffsets");
        assert!(parse(new(), json!({"realtime": {"secs": 1}})).is_err());
        assert!(parse(new(), json!({"boottime": {"nanosecs": 1_000_000_000}})).is_err());
        let joined = json!({"type": "time", "path": "/proc/1/ns/time"});
        assert_eq!(parse(Some(joined), json!({})).unwrap_err().field(), "linux.namespaces[time]");
    }
}
