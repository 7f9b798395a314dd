//! A container's spec.

use std::collections::HashMap;
use std::path::PathBuf;

use husk_spec::annotation;
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Root, Spec};

use super::mounts::{self, Places};
use super::{ImageFacts, SpecError, devices, process, resources, security, users};
use crate::pods::plan::{ContainerPlan, PidPlan};

/// Everything a container's spec is made of.
#[derive(Clone, Copy)]
pub(crate) struct ContainerInputs<'a> {
    pub(crate) pod_id: &'a str,
    pub(crate) hostname: &'a str,
    pub(crate) plan: &'a ContainerPlan,
    pub(crate) image: &'a ImageFacts,
    pub(crate) places: Places<'a>,
}

/// # Errors
///
/// When the plan and the image together make no container: no command, root where it is forbidden, unknown names
/// or volumes.
pub(crate) fn container(inputs: ContainerInputs<'_>) -> Result<Spec, SpecError> {
    let ContainerInputs { pod_id, hostname, plan, image, places } = inputs;
    let annotations = [
        (annotation::CONTAINER_TYPE, "container"),
        (annotation::SANDBOX_ID, pod_id),
        (annotation::CONTAINER_NAME, &plan.name),
    ];
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(plan.read_only_rootfs));
    let process = process::container(plan, image, hostname)?;
    let bounding = process.capabilities().as_ref().and_then(|sets| sets.bounding().clone()).unwrap_or_default();
    let (nodes, mut rules) = devices::all(&plan.name, &plan.devices)?;
    if plan.exposure.privileged {
        rules.insert(0, husk_spec::defaults::all_devices());
    }
    let mut limits = resources::container(&plan.limits);
    limits.set_devices((!rules.is_empty()).then_some(rules));
    let mut linux = Linux::default();
    linux
        .set_devices((!nodes.is_empty()).then_some(nodes))
        .set_namespaces(Some(namespaces(plan)))
        .set_resources(Some(limits));
    security::apply(&mut linux, plan, &bounding)?;
    users::apply(&mut linux, plan.users.as_ref());
    let mut spec = Spec::default();
    spec.set_version("1.2.0".to_owned())
        .set_root(Some(root))
        .set_process(Some(process))
        .set_mounts(Some(mounts::all(plan, places)?))
        .set_hostname(None)
        .set_linux(Some(linux))
        .set_annotations(Some(
            annotations.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect::<HashMap<_, _>>(),
        ));
    Ok(spec)
}

/// Its own mounts, processes and cgroups; the shim gives it the pod's network, IPC and host name. In a pod that shares
/// its processes, "its own" pid namespace is the pod's.
fn namespaces(plan: &ContainerPlan) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let own = [Pid, Network, Ipc, Uts, Mount, Cgroup];
    let namespaces = own.into_iter().chain(plan.users.is_some().then_some(User)).map(|typ| {
        let path = match (typ, plan.pids) {
            (Pid, PidPlan::Task(pid)) => Some(PathBuf::from(format!("/proc/{pid}/ns/pid"))),
            _ => None,
        };
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ).set_path(path);
        namespace
    });
    namespaces.collect()
}
