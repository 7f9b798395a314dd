//! A pod's own spec: no process, but the size and identity of the VM.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use husk_spec::resolv::ResolvConf;
use husk_spec::{annotation, cgroup_path};
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, LinuxResources, Spec};

use super::{mode, security};
use crate::api::{
    DnsConfig, LinuxContainerResources, LinuxPodSandboxConfig, NamespaceMode, PodSandboxConfig, PodSandboxMetadata,
};
use crate::config::{Config, Handler};
use crate::error::Error;

/// Refuses a request that cannot be honoured, before anything is made for it.
///
/// # Errors
///
/// [`Error::InvalidArgument`] with the field's name.
pub fn validate(config: &PodSandboxConfig) -> Result<PodSandboxMetadata, Error> {
    let metadata = config.metadata.clone().unwrap_or_default();
    for (field, value) in [("name", &metadata.name), ("namespace", &metadata.namespace), ("uid", &metadata.uid)] {
        if value.is_empty() {
            return Err(Error::InvalidArgument(format!("sandbox config: metadata.{field} is empty; it must be set")));
        }
    }
    if config.windows.is_some() {
        return Err(Error::InvalidArgument("sandbox config: windows is set; the guest is Linux".into()));
    }
    let Some(linux) = &config.linux else { return Ok(metadata) };
    let Some(context) = &linux.security_context else { return Ok(metadata) };
    let options = context.namespace_options.clone().unwrap_or_default();
    if mode("namespace_options.network", options.network)? == NamespaceMode::Node {
        return Err(Error::InvalidArgument(
            "namespace_options.network = NODE (hostNetwork): the node's network cannot be shared with a VM; \
             remove hostNetwork from the pod, or give it another RuntimeClass"
                .into(),
        ));
    }
    if mode("namespace_options.ipc", options.ipc)? == NamespaceMode::Node {
        return Err(Error::InvalidArgument(
            "namespace_options.ipc = NODE (hostIPC): the node's shared memory cannot be seen from a VM; \
             remove hostIPC from the pod, or give it another RuntimeClass"
                .into(),
        ));
    }
    mode("namespace_options.pid", options.pid)?;
    security::user_namespace(options.userns_options.as_ref())?;
    security::refuse_labels(context.selinux_options.as_ref())?;
    Ok(metadata)
}

/// The spec of the pod `id`, whose network is in `netns`.
#[must_use]
pub fn sandbox(id: &str, config: &PodSandboxConfig, handler: &Handler, settings: &Config, netns: &Path) -> Spec {
    let default = LinuxPodSandboxConfig::default();
    let pod = config.linux.as_ref().unwrap_or(&default);
    let mut namespaces = Vec::with_capacity(3);
    for typ in [LinuxNamespaceType::Network, LinuxNamespaceType::Ipc, LinuxNamespaceType::Uts] {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ).set_path((typ == LinuxNamespaceType::Network).then(|| netns.to_owned()));
        namespaces.push(namespace);
    }
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces))
        .set_resources(Some(LinuxResources::default()))
        .set_sysctl((!pod.sysctls.is_empty()).then(|| pod.sysctls.clone()))
        .set_cgroups_path(cgroup(&pod.cgroup_parent, id))
        .set_masked_paths(None)
        .set_readonly_paths(None);
    let mut spec = Spec::default();
    spec.set_version("1.2.0".to_owned())
        .set_root(None)
        .set_process(None)
        .set_mounts(None)
        .set_hostname((!config.hostname.is_empty()).then(|| config.hostname.clone()))
        .set_linux(Some(linux))
        .set_annotations(Some(annotations(id, config, pod, handler, settings)));
    spec
}

fn cgroup(parent: &str, id: &str) -> Option<PathBuf> {
    (!parent.is_empty()).then(|| cgroup_path(parent, id))
}

fn annotations(
    id: &str,
    config: &PodSandboxConfig,
    pod: &LinuxPodSandboxConfig,
    handler: &Handler,
    settings: &Config,
) -> HashMap<String, String> {
    let metadata = config.metadata.clone().unwrap_or_default();
    // What the pod's author writes reaches the shim only by the administrator's leave.
    let mut all: HashMap<String, String> = config
        .annotations
        .iter()
        .filter(|(name, _)| settings.allows(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut set = |name: &str, value: String| {
        if !value.is_empty() {
            all.insert(name.to_owned(), value);
        }
    };
    set(annotation::CONTAINER_TYPE, "sandbox".into());
    set(annotation::SANDBOX_ID, id.into());
    set(annotation::SANDBOX_NAME, metadata.name);
    set(annotation::SANDBOX_NAMESPACE, metadata.namespace);
    set(annotation::SANDBOX_UID, metadata.uid);
    set(annotation::RESOLV_CONF, resolv_conf(config.dns_config.as_ref()));
    let none = LinuxContainerResources::default();
    let resources = pod.resources.as_ref().unwrap_or(&none);
    let positive = |value: i64| if value > 0 { value.to_string() } else { String::new() };
    let memory = match (resources.memory_limit_in_bytes, handler.memory_mib) {
        (bytes @ 1.., _) => bytes.to_string(),
        (_, Some(mib)) => mib.saturating_mul(1 << 20).to_string(),
        (_, None) => String::new(),
    };
    set(annotation::SANDBOX_MEMORY, memory);
    set(annotation::SANDBOX_CPU_QUOTA, positive(resources.cpu_quota));
    set(annotation::SANDBOX_CPU_PERIOD, positive(resources.cpu_period));
    set(annotation::SANDBOX_CPU_SHARES, positive(resources.cpu_shares));
    all
}

/// The pod's resolv.conf: what kubelet says, or, when it says nothing, the host's.
fn resolv_conf(config: Option<&DnsConfig>) -> String {
    let Some(config) = config else { return ResolvConf::of_host().text() };
    let asked = ResolvConf {
        // What is no address would be no name server.
        servers: config.servers.iter().filter_map(|server| server.parse::<IpAddr>().ok()).collect(),
        searches: config.searches.clone(),
        options: config.options.clone(),
    };
    asked.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{LinuxSandboxSecurityContext, NamespaceOption};

    fn config() -> PodSandboxConfig {
        let metadata =
            PodSandboxMetadata { name: "web".into(), namespace: "prod".into(), uid: "u1".into(), attempt: 0 };
        PodSandboxConfig { metadata: Some(metadata), ..PodSandboxConfig::default() }
    }

    fn with(options: NamespaceOption) -> PodSandboxConfig {
        let context =
            LinuxSandboxSecurityContext { namespace_options: Some(options), ..LinuxSandboxSecurityContext::default() };
        let linux = LinuxPodSandboxConfig { security_context: Some(context), ..LinuxPodSandboxConfig::default() };
        PodSandboxConfig { linux: Some(linux), ..config() }
    }

    fn spec(config: &PodSandboxConfig) -> Spec {
        sandbox("pod1", config, &Handler::default(), &Config::default(), Path::new("/run/netns/husk-pod1"))
    }

    #[test]
    fn the_nodes_network_and_ipc_are_refused_by_name() {
        let node = NamespaceMode::Node.into();
        let network = validate(&with(NamespaceOption { network: node, ..NamespaceOption::default() })).unwrap_err();
        assert!(network.to_string().contains("hostNetwork"), "{network}");
        let ipc = validate(&with(NamespaceOption { ipc: node, ..NamespaceOption::default() })).unwrap_err();
        assert!(ipc.to_string().contains("hostIPC"), "{ipc}");
        assert!(validate(&with(NamespaceOption { pid: node, ..NamespaceOption::default() })).is_ok());
        assert!(validate(&PodSandboxConfig::default()).is_err());
    }

    #[test]
    fn an_annotation_reaches_the_shim_only_when_it_is_allowed() {
        let mut config = config();
        config.annotations.insert("dev.husk.shm-size".into(), "1".into());
        config.annotations.insert(annotation::SANDBOX_MEMORY.into(), "1".into());
        let spec = spec(&config);
        let annotations = spec.annotations().as_ref().unwrap();
        assert_eq!(annotations.get("dev.husk.shm-size"), None);
        assert_eq!(annotations.get(annotation::SANDBOX_MEMORY), None);
        assert_eq!(annotations.get(annotation::SANDBOX_NAME).map(String::as_str), Some("web"));
    }

    #[test]
    fn the_pods_size_is_the_sum_that_kubelet_tells() {
        let resources = LinuxContainerResources {
            memory_limit_in_bytes: 384 << 20,
            cpu_quota: 150_000,
            cpu_period: 100_000,
            cpu_shares: 512,
            ..LinuxContainerResources::default()
        };
        let linux = LinuxPodSandboxConfig {
            cgroup_parent: "/kubepods/burstable/podu1".into(),
            resources: Some(resources),
            ..LinuxPodSandboxConfig::default()
        };
        let spec = spec(&PodSandboxConfig { linux: Some(linux), ..config() });
        let annotations = spec.annotations().as_ref().unwrap();
        assert_eq!(annotations[annotation::SANDBOX_MEMORY], (384 << 20).to_string());
        assert_eq!(annotations[annotation::SANDBOX_CPU_QUOTA], "150000");
        let cgroup = spec.linux().as_ref().unwrap().cgroups_path().clone().unwrap();
        assert_eq!(cgroup, Path::new("/kubepods/burstable/podu1/husk-pod1"));
    }

    #[test]
    fn what_kubelet_says_of_names_replaces_the_hosts() {
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["google.com".into()],
            options: vec!["ndots:8".into()],
        };
        assert_eq!(resolv_conf(Some(&dns)), "nameserver 10.96.0.10\nsearch google.com\noptions ndots:8\n");
    }
}
