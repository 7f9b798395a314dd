//! Capability sets as bit masks.

use husk_agent_api::v1;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use super::SpecError;

/// An absent set is empty: the OCI specification gives no capability that is not named.
pub(crate) fn capabilities(sets: Option<&LinuxCapabilities>) -> Result<v1::Capabilities, SpecError> {
    let Some(sets) = sets else { return Ok(v1::Capabilities::default()) };
    let masks = v1::Capabilities {
        bounding: mask(sets.bounding().as_ref()),
        effective: mask(sets.effective().as_ref()),
        inheritable: mask(sets.inheritable().as_ref()),
        permitted: mask(sets.permitted().as_ref()),
        ambient: mask(sets.ambient().as_ref()),
    };
    // The kernel would answer EPERM in the middle of the start (capset(2), capabilities(7)).
    subset("process.capabilities.effective", masks.effective, masks.permitted, "permitted")?;
    Ok(v1::Capabilities {
        // An ambient capability needs to be permitted and inheritable; runc leaves out those that are not.
        ambient: masks.ambient & masks.permitted & masks.inheritable,
        ..masks
    })
}

fn subset(field: &str, inner: u64, outer: u64, name: &str) -> Result<(), SpecError> {
    let beyond = inner & !outer;
    if beyond == 0 {
        return Ok(());
    }
    let value = format!("bits {beyond:#x}");
    Err(SpecError::invalid(field, value, format!("every capability in it must be in process.capabilities.{name} too")))
}

fn mask(set: Option<&Capabilities>) -> u64 {
    set.into_iter().flatten().fold(0, |mask, capability| mask | 1 << bit(*capability))
}

/// Number of a capability in linux/capability.h.
fn bit(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(json: serde_json::Value) -> Result<v1::Capabilities, SpecError> {
        capabilities(Some(&serde_json::from_value(json).unwrap()))
    }

    #[test]
    fn names_become_the_kernels_bits() {
        let sets = parse(json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_CHECKPOINT_RESTORE"],
            "permitted": ["CAP_NET_BIND_SERVICE"],
            "effective": ["CAP_NET_BIND_SERVICE"],
        }))
        .unwrap();
        assert_eq!(sets.bounding, 1 | 1 << 5 | 1 << 40);
        assert_eq!(sets.permitted, 1 << 10);
        assert_eq!(sets.effective, 1 << 10);
        assert_eq!(sets.inheritable, 0);
    }

    #[test]
    fn absent_sets_are_empty() {
        assert_eq!(capabilities(None).unwrap(), v1::Capabilities::default());
        assert_eq!(parse(json!({})).unwrap(), v1::Capabilities::default());
    }

    #[test]
    fn an_effective_capability_must_be_permitted() {
        let error = parse(json!({"effective": ["CAP_SYS_ADMIN"]})).unwrap_err();
        assert_eq!(error.field(), "process.capabilities.effective");
    }

    #[test]
    fn an_ambient_capability_that_cannot_be_raised_is_left_out_as_runc_does() {
        let sets = parse(json!({
            "permitted": ["CAP_CHOWN", "CAP_KILL"], "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN", "CAP_KILL"],
        }))
        .unwrap();
        assert_eq!(sets.ambient, 1);
    }

    #[test]
    fn an_unknown_capability_does_not_parse() {
        assert!(serde_json::from_value::<LinuxCapabilities>(json!({"bounding": ["CAP_FLY"]})).is_err());
    }
}
