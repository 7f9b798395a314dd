//! From a typed Pod, whose fields have all passed `check`, to a plan.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec, ResourceRequirements, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{expand, network, quantity, security};
use crate::pods::ids;
use crate::pods::plan::{
    ContainerPlan, ExitPolicy, Kind, Limits, Medium, MountPlan, MountSource, PodPlan, PullPolicy, RestartPolicy,
    VolumePlan,
};
use crate::spec::resources;

/// Grace between SIGTERM and SIGKILL when the manifest does not say, seconds: podman's, not Kubernetes' 30. Many a
/// first process ignores SIGTERM, and somebody is waiting at a prompt.
const GRACE_SECONDS: u64 = 10;

/// Problems of one manifest, each with its full path.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, path: &str, text: impl std::fmt::Display) {
        self.0.push(format!("{path}: {text}"));
    }
}

/// # Errors
///
/// Every value that is well-formed and yet makes no sense: a bad name, a mount of no volume, a limit below its request.
pub(super) fn pod(pod: &Pod) -> Result<PodPlan, Vec<String>> {
    let mut problems = Problems::default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    if name.is_empty() {
        problems.add("metadata.name", "a pod needs a name");
    } else if !is_dns_subdomain(&name) {
        problems.add("metadata.name", format!("\"{name}\" is no pod name: {DNS_RULE}, and dots between them"));
    }
    let Some(spec) = &pod.spec else {
        problems.add("spec", "a pod needs a spec with containers");
        return Err(problems.0);
    };
    let namespace = pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let identity = Identity { name: &name, namespace: &namespace, uid: ids::uid(), metadata: pod };
    let hostname = spec.hostname.clone().unwrap_or_else(|| default_hostname(&name));
    if !name.is_empty() && !is_dns_label(&hostname) {
        problems.add("spec.hostname", format!("\"{hostname}\" is no host name: {DNS_RULE}"));
    }
    let volumes = volumes(spec, &mut problems);
    let restart_policy = restart_policy(spec, &mut problems);
    let containers = containers(spec, &identity, &volumes, restart_policy, &mut problems);
    let network = network::network(&pod.metadata, spec, &mut problems);
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    Ok(PodPlan {
        network,
        uid: identity.uid,
        hostname,
        share_process_namespace: spec.share_process_namespace.unwrap_or(false),
        restart_policy,
        exit_policy: ExitPolicy::Stop,
        private: false,
        qualified_names: true,
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        volumes,
        containers,
        name,
        namespace,
    })
}

/// What `fieldRef` can see.
struct Identity<'a> {
    name: &'a str,
    namespace: &'a str,
    uid: String,
    metadata: &'a Pod,
}

impl Identity<'_> {
    fn field(&self, path: &str) -> Option<String> {
        match path {
            "metadata.name" => Some(self.name.to_owned()),
            "metadata.namespace" => Some(self.namespace.to_owned()),
            "metadata.uid" => Some(self.uid.clone()),
            _ => {
                let (map, key) = path.strip_suffix("']")?.split_once("['")?;
                let metadata = &self.metadata.metadata;
                let values: &Option<BTreeMap<String, String>> = match map {
                    "metadata.labels" => &metadata.labels,
                    "metadata.annotations" => &metadata.annotations,
                    _ => return None,
                };
                // A label that is not set reads as empty, as in Kubernetes.
                Some(values.as_ref().and_then(|v| v.get(key)).cloned().unwrap_or_default())
            }
        }
    }
}

fn restart_policy(spec: &PodSpec, problems: &mut Problems) -> RestartPolicy {
    match spec.restart_policy.as_deref() {
        None | Some("Always") => RestartPolicy::Always,
        Some("OnFailure") => RestartPolicy::OnFailure,
        Some("Never") => RestartPolicy::Never,
        Some(other) => {
            problems.add("spec.restartPolicy", format!("\"{other}\" is none of Always, OnFailure, Never"));
            RestartPolicy::Never
        }
    }
}

fn volumes(spec: &PodSpec, problems: &mut Problems) -> Vec<VolumePlan> {
    let mut plans: Vec<VolumePlan> = Vec::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("spec.volumes[{index}]");
        if !is_dns_label(&volume.name) {
            problems.add(&format!("{path}.name"), format!("\"{}\" is no volume name: {DNS_RULE}", volume.name));
        } else if plans.iter().any(|p| p.name == volume.name) {
            problems.add(&format!("{path}.name"), format!("there are two volumes named {}", volume.name));
        }
        plans.push(self::volume(volume, &path, problems));
    }
    plans
}

fn volume(volume: &Volume, path: &str, problems: &mut Problems) -> VolumePlan {
    // No source at all is an emptyDir, as in Kubernetes' defaults.
    let source = volume.empty_dir.clone().unwrap_or_default();
    let medium = match source.medium.as_deref() {
        None | Some("") => Medium::Disk,
        Some("Memory") => Medium::Memory,
        Some(other) => {
            problems.add(&format!("{path}.emptyDir.medium"), format!("\"{other}\" is neither Memory nor empty"));
            Medium::Disk
        }
    };
    let size = source.size_limit.as_ref().and_then(|limit| {
        let path = format!("{path}.emptyDir.sizeLimit");
        if medium == Medium::Disk {
            problems.add(
                &path,
                "not supported on disk: the pod's scratch disk has one size for all its volumes; remove it or set \
                 medium: Memory",
            );
        }
        checked(&path, quantity::bytes(&limit.0), problems)
    });
    VolumePlan { name: volume.name.clone(), medium, size: size.filter(|s| *s > 0) }
}

fn containers(
    spec: &PodSpec,
    identity: &Identity<'_>,
    volumes: &[VolumePlan],
    policy: RestartPolicy,
    problems: &mut Problems,
) -> Vec<ContainerPlan> {
    let mut plans = Vec::new();
    let mut names = BTreeSet::new();
    let inits = spec.init_containers.iter().flatten().enumerate();
    let inits = inits.map(|(n, c)| (format!("spec.initContainers[{n}]"), c, true));
    let apps = spec.containers.iter().enumerate().map(|(n, c)| (format!("spec.containers[{n}]"), c, false));
    for (path, container, init) in inits.chain(apps) {
        if !is_dns_label(&container.name) {
            let text = format!("\"{}\" is no container name: {DNS_RULE}", container.name);
            problems.add(&format!("{path}.name"), text);
        } else if !names.insert(container.name.as_str()) {
            problems.add(&format!("{path}.name"), format!("there are two containers named {}", container.name));
        }
        let kind = match (init, container.restart_policy.is_some()) {
            (true, true) => Kind::Sidecar,
            (true, false) => Kind::Init,
            (false, _) => Kind::App,
        };
        let mut plan = self::container(container, &path, identity, volumes, problems);
        security::apply(
            &mut plan,
            spec.security_context.as_ref(),
            container.security_context.as_ref(),
            &path,
            problems,
        );
        plan.kind = kind;
        plan.restart = match kind {
            Kind::Sidecar => RestartPolicy::Always,
            // An init container that has succeeded is done under every policy.
            Kind::Init if policy == RestartPolicy::Always => RestartPolicy::OnFailure,
            Kind::Init | Kind::App => policy,
        };
        plan.stop_timeout = match spec.termination_grace_period_seconds {
            None => GRACE_SECONDS,
            Some(seconds) => u64::try_from(seconds).unwrap_or_else(|_| {
                problems.add("spec.terminationGracePeriodSeconds", "must not be negative");
                GRACE_SECONDS
            }),
        };
        plans.push(plan);
    }
    if spec.containers.is_empty() {
        problems.add("spec.containers", "a pod needs at least one container");
    }
    problems.0.dedup();
    plans
}

fn container(
    container: &Container,
    path: &str,
    identity: &Identity<'_>,
    volumes: &[VolumePlan],
    problems: &mut Problems,
) -> ContainerPlan {
    let image = container.image.clone().unwrap_or_default();
    if image.is_empty() {
        problems.add(&format!("{path}.image"), "a container needs an image");
    }
    let env = env(container.env.as_deref().unwrap_or_default(), path, identity, problems);
    let expanded = |words: &Option<Vec<String>>| {
        let words = words.as_ref().filter(|w| !w.is_empty())?;
        Some(words.iter().map(|word| expand::expand(word, |name| expand::find(&env, name))).collect())
    };
    let workdir = container.working_dir.clone().filter(|dir| !dir.is_empty());
    if workdir.as_ref().is_some_and(|dir| !dir.starts_with('/')) {
        problems.add(&format!("{path}.workingDir"), "must be an absolute path");
    }
    for (index, port) in container.ports.iter().flatten().enumerate() {
        if !(1..=65535).contains(&port.container_port) {
            let text = format!("{} is no port number (1 to 65535)", port.container_port);
            problems.add(&format!("{path}.ports[{index}].containerPort"), text);
        }
    }
    ContainerPlan {
        name: container.name.clone(),
        pull: pull_policy(container, &image, path, problems),
        entrypoint: expanded(&container.command),
        args: expanded(&container.args),
        workdir,
        mounts: mounts(container.volume_mounts.as_deref().unwrap_or_default(), path, volumes, problems),
        limits: limits(container.resources.as_ref(), path, problems),
        terminal: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        image,
        env,
        ..ContainerPlan::default()
    }
}

fn pull_policy(container: &Container, image: &str, path: &str, problems: &mut Problems) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        // Unlike Kubernetes, `latest` is not asked for again: what was loaded by hand is used, as podman does.
        None | Some("" | "IfNotPresent") => PullPolicy::Missing,
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some(other) => {
            let text = format!("\"{other}\" (of {image}) is none of Always, IfNotPresent, Never");
            problems.add(&format!("{path}.imagePullPolicy"), text);
            PullPolicy::Missing
        }
    }
}

fn env(env: &[EnvVar], path: &str, identity: &Identity<'_>, problems: &mut Problems) -> Vec<(String, String)> {
    let mut pairs = Vec::with_capacity(env.len());
    for (index, var) in env.iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        if var.name.is_empty() || var.name.contains(['=', '\0']) {
            problems.add(&format!("{path}.name"), format!("\"{}\" is no variable name", var.name));
        }
        let reference = var.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        let value = match (var.value.clone(), reference) {
            (Some(value), Some(_)) if !value.is_empty() => {
                problems.add(&path, "has both value and valueFrom");
                value
            }
            (_, Some(reference)) => identity.field(&reference.field_path).unwrap_or_else(|| {
                problems.add(
                    &format!("{path}.valueFrom.fieldRef.fieldPath"),
                    format!(
                        "{} is not supported: known are metadata.name, metadata.namespace, metadata.uid, \
                         metadata.labels['KEY'] and metadata.annotations['KEY']",
                        reference.field_path
                    ),
                );
                String::new()
            }),
            (value, None) => value.unwrap_or_default(),
        };
        pairs.push((var.name.clone(), value));
    }
    expand::expand_env(&pairs)
}

fn mounts(mounts: &[VolumeMount], path: &str, volumes: &[VolumePlan], problems: &mut Problems) -> Vec<MountPlan> {
    let mut plans: Vec<MountPlan> = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if !volumes.iter().any(|v| v.name == mount.name) {
            problems.add(&format!("{path}.name"), format!("there is no volume \"{}\" in spec.volumes", mount.name));
        }
        if !is_mount_point(&mount.mount_path) {
            let text = format!("\"{}\" must be an absolute path below / without \"..\"", mount.mount_path);
            problems.add(&format!("{path}.mountPath"), text);
        }
        if plans.iter().any(|p| p.destination == mount.mount_path) {
            problems.add(&format!("{path}.mountPath"), format!("{} is mounted twice", mount.mount_path));
        }
        let sub_path = mount.sub_path.clone().filter(|p| !p.is_empty());
        if let Some(sub) = &sub_path
            && (sub.starts_with('/') || sub.split('/').any(|part| part == ".."))
        {
            problems.add(&format!("{path}.subPath"), format!("\"{sub}\" must be relative and without \"..\""));
        }
        plans.push(MountPlan {
            source: MountSource::PodVolume { name: mount.name.clone(), sub_path },
            destination: mount.mount_path.clone(),
            read_only: mount.read_only.unwrap_or(false),
        });
    }
    plans
}

fn limits(wanted: Option<&ResourceRequirements>, path: &str, problems: &mut Problems) -> Limits {
    let Some(wanted) = wanted else { return Limits::default() };
    let mut read = |kind: &str, list: Option<&BTreeMap<String, Quantity>>, name: &str| {
        let text = &list?.get(name)?.0;
        let path = format!("{path}.resources.{kind}.{name}");
        let parsed = if name == "cpu" { quantity::milli_cpus(text) } else { quantity::bytes(text) };
        checked(&path, parsed, problems).filter(|value| *value > 0)
    };
    let (limits, requests) = (wanted.limits.as_ref(), wanted.requests.as_ref());
    let (memory, cpu_milli) = (read("limits", limits, "memory"), read("limits", limits, "cpu"));
    let (memory_request, cpu_request) = (read("requests", requests, "memory"), read("requests", requests, "cpu"));
    let exceeds = |request: Option<u64>, limit: Option<u64>| request.zip(limit).is_some_and(|(r, l)| r > l);
    if exceeds(memory_request, memory) {
        problems.add(&format!("{path}.resources.requests.memory"), "is more than limits.memory");
    }
    if exceeds(cpu_request, cpu_milli) {
        problems.add(&format!("{path}.resources.requests.cpu"), "is more than limits.cpu");
    }
    if memory.is_some_and(|bytes| bytes < resources::MIN_MEMORY) {
        let text = format!("is less than {} MiB, too little to start a container", resources::MIN_MEMORY >> 20);
        problems.add(&format!("{path}.resources.limits.memory"), text);
    }
    // Kubernetes takes a limit for the request too when there is no request.
    let cpu_shares = cpu_request.or(cpu_milli).map(resources::shares);
    Limits { memory, cpu_milli, cpu_shares, pids: None }
}

fn checked<T>(path: &str, parsed: Result<T, quantity::QuantityError>, problems: &mut Problems) -> Option<T> {
    parsed.map_err(|error| problems.add(path, error)).ok()
}

const DNS_RULE: &str = "use at most 63 characters of a-z, 0-9 and -, beginning and ending with a letter or digit";

fn is_dns_label(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 63
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// A pod name may be longer than a host name and have dots; Kubernetes cuts it at 63 characters.
fn default_hostname(name: &str) -> String {
    let label = name.split('.').next().unwrap_or(name);
    label.to_owned()
}

fn is_mount_point(path: &str) -> bool {
    path.starts_with('/')
        && path.bytes().any(|b| b != b'/')
        && !path.contains('\0')
        && !path.split('/').any(|part| part == "..")
}
