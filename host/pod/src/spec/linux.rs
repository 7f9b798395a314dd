//! What a spec may not ask for at all, whoever it is for.

use oci_spec::runtime::{Linux, Spec};

use super::{SpecError, refuse_members, refuse_some, refuse_text};

/// Refuses what neither a sandbox nor a container can have.
pub(crate) fn refuse(spec: &Spec) -> Result<(), SpecError> {
    refuse_some("solaris", spec.solaris().as_ref(), "the guest is Linux")?;
    refuse_some("windows", spec.windows().as_ref(), "the guest is Linux")?;
    refuse_some("zos", spec.zos().as_ref(), "the guest is Linux")?;
    refuse_some(
        "vm",
        spec.vm().as_ref(),
        "the VM's kernel and parameters are the installation's, not the container's",
    )?;
    hooks(spec)?;
    match spec.linux() {
        Some(linux) => refuse_linux(linux),
        None => Ok(()),
    }
}

fn hooks(spec: &Spec) -> Result<(), SpecError> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    for (field, list) in [
        ("hooks.createRuntime", hooks.create_runtime()),
        ("hooks.createContainer", hooks.create_container()),
        ("hooks.startContainer", hooks.start_container()),
        ("hooks.poststart", hooks.poststart()),
        ("hooks.poststop", hooks.poststop()),
        ("hooks.prestart", hooks.prestart()),
    ] {
        refuse_members(field, list.as_ref(), "programs of the node cannot act on a container inside a VM")?;
    }
    Ok(())
}

fn refuse_linux(linux: &Linux) -> Result<(), SpecError> {
    refuse_text("linux.mountLabel", linux.mount_label().as_ref(), "the guest kernel has no SELinux")?;
    refuse_some("linux.intelRdt", linux.intel_rdt().as_ref(), "the VM has no cache allocation of its own")?;
    refuse_some("linux.memoryPolicy", linux.memory_policy().as_ref(), "the guest has one memory node")?;
    refuse_some("linux.personality", linux.personality().as_ref(), "execution domains are not set in the guest")?;
    refuse_members("linux.netDevices", linux.net_devices().as_ref(), "devices of the node do not exist in the VM")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::testing;

    #[test]
    fn every_refusal_names_its_field() {
        for (pointer, value, field) in [
            ("/hooks", json!({"poststop": [{"path": "/bin/true"}]}), "hooks.poststop"),
            ("/hooks", json!({"prestart": [{"path": "/bin/true"}]}), "hooks.prestart"),
            ("/vm", json!({"kernel": {"path": "/evil"}}), "vm"),
            ("/linux/mountLabel", json!("system_u"), "linux.mountLabel"),
            ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
            ("/linux/personality", json!({"domain": "LINUX32"}), "linux.personality"),
            ("/linux/netDevices", json!({"eth9": {"name": "eth0"}}), "linux.netDevices"),
        ] {
            let error = refuse(&testing::with(pointer, value)).unwrap_err();
            assert!(matches!(&error, SpecError::Unsupported { .. }), "{error}");
            assert_eq!(error.field(), field);
        }
    }

    #[test]
    fn empty_values_mean_nothing() {
        for (pointer, value) in [("/hooks", json!({"poststop": []})), ("/linux/mountLabel", json!(""))] {
            refuse(&testing::with(pointer, value)).unwrap();
        }
    }
}
