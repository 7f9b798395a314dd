//! The spec of a pod's sandbox: no process of its own, but the size and identity of the VM.

use std::collections::HashMap;

use husk_spec::{annotation, cgroup_path};
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, LinuxResources, Spec};

use super::resources;
use crate::network::{self, files};
use crate::pods::plan::PodPlan;

/// The sandbox of `plan` under the id `pod_id`.
pub(crate) fn sandbox(pod_id: &str, plan: &PodPlan) -> Spec {
    let mut annotations: HashMap<String, String> = [
        (annotation::CONTAINER_TYPE, "sandbox"),
        (annotation::SANDBOX_ID, pod_id),
        (annotation::SANDBOX_NAME, &plan.name),
        (annotation::SANDBOX_NAMESPACE, &plan.namespace),
        (annotation::SANDBOX_UID, &plan.uid),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    if let Some(bytes) = plan.limits.memory.or_else(|| resources::pod_memory(&plan.containers)) {
        annotations.insert(annotation::SANDBOX_MEMORY.to_owned(), bytes.to_string());
    }
    if let Some(shares) = plan.limits.cpu_shares.or_else(|| resources::pod_cpu_shares(&plan.containers)) {
        annotations.insert(annotation::SANDBOX_CPU_SHARES.to_owned(), shares.to_string());
    }
    if let Some(quota) = resources::pod_cpu_quota(&plan.limits, &plan.containers) {
        annotations.insert(annotation::SANDBOX_CPU_QUOTA.to_owned(), quota.to_string());
        annotations.insert(annotation::SANDBOX_CPU_PERIOD.to_owned(), resources::CPU_PERIOD_US.to_string());
    }
    if let Some(bytes) = plan.shm_size {
        annotations.insert(annotation::SHM_SIZE.to_owned(), bytes.to_string());
    }
    if plan.share_process_namespace {
        annotations.insert(annotation::SHARE_PROCESS_NAMESPACE.to_owned(), "true".to_owned());
    }
    for (name, text) in
        [(annotation::RESOLV_CONF, files::resolv_conf(&plan.network)), (annotation::HOSTS, files::hosts(&plan.network))]
    {
        if !text.is_empty() {
            annotations.insert(name.to_owned(), text);
        }
    }
    let netns = (!plan.network.is_none()).then(|| network::netns_path(pod_id));
    let namespaces = [LinuxNamespaceType::Network, LinuxNamespaceType::Ipc, LinuxNamespaceType::Uts].map(|typ| {
        let mut namespace = LinuxNamespace::default();
        let path = if typ == LinuxNamespaceType::Network { netns.clone() } else { None };
        namespace.set_typ(typ).set_path(path);
        namespace
    });
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces.to_vec()))
        .set_resources(Some(LinuxResources::default()))
        .set_cgroups_path(plan.cgroup_parent.as_deref().map(|parent| cgroup_path(parent, pod_id)))
        .set_masked_paths(None)
        .set_readonly_paths(None);
    let mut spec = Spec::default();
    spec.set_version("1.2.0".to_owned())
        .set_root(None)
        .set_process(None)
        .set_mounts(None)
        .set_hostname(Some(plan.hostname.clone()))
        .set_domainname(plan.domainname.clone())
        .set_linux(Some(linux))
        .set_annotations(Some(annotations));
    spec
}
