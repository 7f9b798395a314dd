//! One container's spec as a whole.

use husk_agent_api::v1;
use oci_spec::runtime::Spec;

use super::devices::PlannedDevice;
use super::mounts::{PlannedMount, mounts};
use super::namespaces::PidNamespace;
use super::{
    Limits, SpecError, clocks, container_path, devices, linux, namespaces, process, resources, seccomp, users,
};

/// A container as the agent will be asked for it, but for what needs devices and tokens.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPlan {
    pub(crate) process: v1::Process,
    pub(crate) mounts: Vec<PlannedMount>,
    pub(crate) devices: Vec<PlannedDevice>,
    pub(crate) limits: Limits,
    pub(crate) pids: PidNamespace,
    pub(crate) user_namespace: Option<v1::IdMaps>,
    pub(crate) clocks: Option<v1::ClockOffsets>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    pub(crate) root_propagation: v1::Propagation,
    pub(crate) root_read_only: bool,
    pub(crate) seccomp: Option<v1::SeccompFilter>,
    /// Every device that the guest gives to containers at all.
    pub(crate) all_devices: bool,
}

/// What the pod means for a container's spec.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodTraits {
    pub(crate) shares_pids: bool,
    /// The only container, whose spec is also the sandbox's.
    pub(crate) single_container: bool,
}

pub(crate) fn container(spec: &Spec, pod: PodTraits) -> Result<ContainerPlan, SpecError> {
    linux::refuse(spec)?;
    let absent = || SpecError::invalid("linux", "(absent)", "a container needs its Linux part");
    let linux = spec.linux().as_ref().ok_or_else(absent)?;
    if !pod.single_container && linux.sysctl().as_ref().is_some_and(|sysctls| !sysctls.is_empty()) {
        let why = "kernel parameters belong to the pod; set them on its sandbox";
        return Err(SpecError::unsupported("linux.sysctl", "(set)", why));
    }
    if !pod.single_container {
        let why = "the domain name is the pod's; set it on its sandbox";
        super::refuse_text("domainname", spec.domainname().as_ref(), why)?;
    }
    let process = match spec.process() {
        Some(wanted) => process::process(wanted)?,
        None => return Err(SpecError::invalid("process", "(absent)", "a container needs a program to run")),
    };
    let devices = linux.devices().as_deref().unwrap_or_default();
    let blocks = devices::block_numbers(devices);
    let user_namespace = users::user_namespace(linux)?;
    let limits = linux.resources().as_ref();
    let rules = limits.and_then(|limits| limits.devices().as_deref()).unwrap_or_default();
    Ok(ContainerPlan {
        process,
        mounts: mounts(spec.mounts().as_deref().unwrap_or_default(), user_namespace.as_ref())?,
        user_namespace,
        clocks: clocks::clocks(linux)?,
        devices: devices::nodes(devices, rules)?,
        limits: limits.map(|limits| resources::resources(limits, &blocks)).transpose()?.unwrap_or_default(),
        pids: namespaces::pid(linux.namespaces().as_deref().unwrap_or_default(), pod.shares_pids)?,
        masked_paths: paths("linux.maskedPaths", linux.masked_paths().as_deref())?,
        readonly_paths: paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
        root_propagation: propagation(linux.rootfs_propagation().as_deref())?,
        all_devices: devices::all_allowed(rules)?,
        seccomp: linux.seccomp().as_ref().map(seccomp::filter).transpose()?,
        root_read_only: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
    })
}

fn paths(field: &str, paths: Option<&[String]>) -> Result<Vec<String>, SpecError> {
    paths.unwrap_or_default().iter().map(|path| container_path(field, path)).collect()
}

fn propagation(text: Option<&str>) -> Result<v1::Propagation, SpecError> {
    match text {
        None | Some("" | "private" | "rprivate") => Ok(v1::Propagation::Private),
        Some("slave" | "rslave") => Ok(v1::Propagation::Slave),
        Some("shared" | "rshared") => Ok(v1::Propagation::Shared),
        Some(other) => Err(SpecError::unsupported("linux.rootfsPropagation", other, "use rprivate, rslave or rshared")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::testing;

    const POD: PodTraits = PodTraits { shares_pids: false, single_container: false };

    fn with(pointer: &str, value: Value) -> Result<ContainerPlan, SpecError> {
        container(&testing::with(pointer, value), POD)
    }

    #[test]
    fn a_plain_container_is_translated() {
        let plan = with("/linux/maskedPaths", json!(["/proc/kcore"])).unwrap();
        assert_eq!(plan.masked_paths, ["/proc/kcore"]);
        assert_eq!(plan.mounts.len(), 1);
        assert_eq!(plan.pids, PidNamespace::Own);
        assert_eq!(plan.root_propagation, v1::Propagation::Private);
        assert!(!plan.root_read_only);
    }

    #[test]
    fn a_read_only_root_is_honoured() {
        assert!(with("/root/readonly", json!(true)).unwrap().root_read_only);
    }

    #[test]
    fn kernel_parameters_are_the_pods_business() {
        let spec = testing::with("/linux/sysctl", json!({"net.core.somaxconn": "1024"}));
        assert_eq!(container(&spec, POD).unwrap_err().field(), "linux.sysctl");
        assert!(container(&spec, PodTraits { single_container: true, ..POD }).is_ok());
    }

    #[test]
    fn a_container_needs_process_and_linux() {
        let mut json = testing::base();
        json.as_object_mut().unwrap().remove("process");
        assert_eq!(container(&serde_json::from_value(json).unwrap(), POD).unwrap_err().field(), "process");
        let mut json = testing::base();
        json.as_object_mut().unwrap().remove("linux");
        assert_eq!(container(&serde_json::from_value(json).unwrap(), POD).unwrap_err().field(), "linux");
    }

    #[test]
    fn propagation_modes_are_understood() {
        for (text, expected) in
            [("rslave", v1::Propagation::Slave), ("shared", v1::Propagation::Shared), ("", v1::Propagation::Private)]
        {
            assert_eq!(with("/linux/rootfsPropagation", json!(text)).unwrap().root_propagation, expected);
        }
        assert!(with("/linux/rootfsPropagation", json!("unbindable")).is_err());
    }

    #[test]
    fn masked_paths_are_absolute() {
        assert_eq!(with("/linux/maskedPaths", json!(["proc"])).unwrap_err().field(), "linux.maskedPaths");
    }
}
