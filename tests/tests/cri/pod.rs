//! A pod as kubelet prepares it: a cgroup, files, logs, and the configurations that name them (kubelet
//! `pkg/kubelet/kuberuntime`).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use husk_cri::api::*;
use husk_tests::fixture::wait_for;

use super::kubelet::Kubelet;
use super::node::{BURSTABLE, Node, control_group, make_control_group};

pub(crate) const IMAGE: &str = "docker.io/library/busybox:latest";
pub(crate) const MIB: i64 = 1 << 20;

/// A pod of the API server's, which may have had several sandboxes.
pub(crate) struct Pod {
    pub(crate) config: PodSandboxConfig,
    pub(crate) kubelet: Kubelet,
    /// kubelet's directory of it.
    pub(crate) directory: PathBuf,
    image: String,
    control_group: String,
}

impl Pod {
    /// Everything that kubelet does before it asks for the sandbox.
    pub(crate) fn prepare(node: &Node, name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let uid = format!("d0c0ffee-0000-4000-8000-{:012}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = node.volumes().join("pods").join(&uid);
        let logs = node.volumes().join("logs").join(format!("default_{name}_{uid}"));
        for path in [&directory.join("containers"), &directory.join("volumes"), &logs] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(directory.join("etc-hosts"), format!("# Kubernetes-managed hosts file.\n10.87.0.9\t{name}\n"))
            .unwrap();
        let control_group = format!("{BURSTABLE}/pod{uid}");
        make_control_group(&control_group);
        let metadata =
            PodSandboxMetadata { name: name.to_owned(), namespace: "default".into(), uid: uid.clone(), attempt: 0 };
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces()),
            ..LinuxSandboxSecurityContext::default()
        };
        let linux = LinuxPodSandboxConfig {
            cgroup_parent: control_group.clone(),
            security_context: Some(security),
            resources: Some(resources(128)),
            ..LinuxPodSandboxConfig::default()
        };
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["default.svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            hostname: name.to_owned(),
            log_directory: logs.to_string_lossy().into_owned(),
            dns_config: Some(dns),
            labels: labels(name, &uid),
            annotations: texts(&[("kubernetes.io/config.source", "api")]),
            linux: Some(linux),
            ..PodSandboxConfig::default()
        };
        let image = node.kubelet.image(IMAGE).map(|image| image.id);
        let image = image.unwrap_or_else(|| node.kubelet.pull(IMAGE).unwrap());
        Self { config, kubelet: node.kubelet.clone(), directory, image, control_group }
    }

    pub(crate) fn set_attempt(&mut self, attempt: u32) {
        self.config.metadata.as_mut().unwrap().attempt = attempt;
    }

    /// The sandbox, ready.
    pub(crate) fn run(&self) -> String {
        self.kubelet.run_pod(&self.config).unwrap()
    }

    /// The configuration of a container that runs a shell script.
    pub(crate) fn container(&self, name: &str, attempt: u32, script: &str) -> ContainerConfig {
        let termination = self.termination(name, attempt);
        fs::create_dir_all(termination.parent().unwrap()).unwrap();
        fs::create_dir_all(Path::new(&self.config.log_directory).join(name)).unwrap();
        fs::write(&termination, "").unwrap();
        let mut container_labels = self.config.labels.clone();
        container_labels.insert("io.kubernetes.container.name".into(), name.into());
        let security = LinuxContainerSecurityContext {
            namespace_options: Some(namespaces()),
            run_as_user: Some(Int64Value { value: 0 }),
            masked_paths: ["/proc/kcore", "/proc/keys", "/sys/firmware"].map(str::to_owned).into(),
            readonly_paths: ["/proc/sys", "/proc/sysrq-trigger"].map(str::to_owned).into(),
            ..LinuxContainerSecurityContext::default()
        };
        let env = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt }),
            image: Some(ImageSpec {
                image: self.image.clone(),
                user_specified_image: IMAGE.into(),
                ..ImageSpec::default()
            }),
            command: ["sh", "-c", script].map(str::to_owned).into(),
            envs: vec![env("KUBERNETES_SERVICE_HOST", "10.96.0.1"), env("KUBERNETES_SERVICE_PORT", "443")],
            mounts: vec![
                mount(&self.directory.join("etc-hosts"), "/etc/hosts", false),
                mount(&termination, "/dev/termination-log", false),
            ],
            labels: container_labels,
            annotations: texts(&[
                ("io.kubernetes.container.hash", "c0ffee"),
                ("io.kubernetes.container.restartCount", &attempt.to_string()),
                ("io.kubernetes.container.terminationMessagePath", "/dev/termination-log"),
                ("io.kubernetes.container.terminationMessagePolicy", "File"),
                ("io.kubernetes.pod.terminationGracePeriod", "30"),
            ]),
            log_path: format!("{name}/{attempt}.log"),
            linux: Some(LinuxContainerConfig { resources: Some(resources(64)), security_context: Some(security) }),
            ..ContainerConfig::default()
        }
    }

    /// Creates and starts a container in a sandbox of this pod.
    pub(crate) fn start(&self, sandbox: &str, config: &ContainerConfig) -> String {
        let id = self.kubelet.create(sandbox, config, &self.config).unwrap();
        self.kubelet.start(&id).unwrap();
        id
    }

    /// The host's file of a container's termination message.
    pub(crate) fn termination(&self, name: &str, attempt: u32) -> PathBuf {
        self.directory.join("containers").join(name).join(attempt.to_string())
    }

    /// A container's log.
    pub(crate) fn log(&self, config: &ContainerConfig) -> PathBuf {
        Path::new(&self.config.log_directory).join(&config.log_path)
    }

    /// Waits until the container has ended.
    pub(crate) fn ended(&self, container: &str) -> ContainerStatus {
        wait_for(&format!("the end of container {container}"), 20, || {
            let status = self.kubelet.container(container).unwrap();
            (status.state() == ContainerState::ContainerExited).then_some(status)
        })
    }

    /// Waits until a container's log has a line with this text.
    pub(crate) fn logged(&self, config: &ContainerConfig, text: &str) -> String {
        wait_for(&format!("{text:?} in {}", config.log_path), 20, || {
            let log = fs::read_to_string(self.log(config)).unwrap_or_default();
            log.lines().any(|line| line.ends_with(&format!(" {text}"))).then_some(log)
        })
    }

    /// The VMM's process.
    pub(crate) fn vmm(&self, sandbox: &str) -> i32 {
        let pid = self.kubelet.pod_info(sandbox)["pid"].as_i64().expect("the VMM's pid");
        i32::try_from(pid).unwrap()
    }

    /// What kubelet's garbage collection does to a dead sandbox.
    pub(crate) fn collect(&self, sandbox: &str) {
        self.kubelet.stop_pod(sandbox).unwrap();
        self.kubelet.remove_pod(sandbox).unwrap();
    }

    /// The cgroup of this pod.
    pub(crate) fn control_group(&self) -> &str {
        &self.control_group
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Not with what is in it: that would be huskd's to remove.
        let removed = fs::remove_dir(control_group(&self.control_group));
        assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", self.control_group);
    }
}

/// A bind mount, as of a volume.
pub(crate) fn mount(host: &Path, container: &str, readonly: bool) -> Mount {
    Mount {
        host_path: host.to_string_lossy().into_owned(),
        container_path: container.to_owned(),
        readonly,
        ..Mount::default()
    }
}

/// What kubelet asks for a container: a CPU at most, half of one in need, and so many MiB.
pub(crate) fn resources(mib: i64) -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 100_000,
        cpu_shares: 512,
        memory_limit_in_bytes: mib * MIB,
        oom_score_adj: 999,
        unified: texts(&[("memory.oom.group", "1")]),
        ..LinuxContainerResources::default()
    }
}

fn namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Pod.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
        ..NamespaceOption::default()
    }
}

fn labels(name: &str, uid: &str) -> HashMap<String, String> {
    texts(&[
        ("app", name),
        ("io.kubernetes.pod.name", name),
        ("io.kubernetes.pod.namespace", "default"),
        ("io.kubernetes.pod.uid", uid),
    ])
}

fn texts(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
