//! From a typed Pod, whose fields have all passed `check`, to a plan.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::downward::Downward;
use super::env::Environment;
use super::names::{DNS_RULE, is_dns_label, is_dns_subdomain};
use super::objects::{Object, ObjectKind, Objects};
use super::{health, limits, network, security, volumes};
use crate::pods::ids;
use crate::pods::plan::{ContainerPlan, ExitPolicy, Kind, PodPlan, PullPolicy, RestartPolicy, UsersPlan, VolumePlan};
use husk_spec::signals;

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

/// What the fields of a pod can refer to.
pub(super) struct Context<'a> {
    pub(super) downward: Downward<'a>,
    pub(super) objects: &'a Objects,
}

impl Context<'_> {
    /// The object; without one a problem, unless it is optional.
    pub(super) fn object(
        &self,
        kind: ObjectKind,
        name: &str,
        optional: Option<bool>,
        path: &str,
        problems: &mut Problems,
    ) -> Option<&Object> {
        let object = self.objects.get(kind, name);
        if object.is_none() && optional != Some(true) {
            let elsewhere = if kind == ObjectKind::ConfigMap { ", or in a file given by --configmap" } else { "" };
            let text = format!(
                "there is no {0} \"{name}\": write it into the manifest as a document of kind {0}{elsewhere}",
                kind.as_str()
            );
            problems.add(path, text);
        }
        object
    }
}

/// # Errors
///
/// Every value that is well-formed and yet makes no sense: a bad name, a mount of no volume, a limit below its request.
pub(super) fn pod(pod: &Pod, objects: &Objects) -> Result<PodPlan, Vec<String>> {
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
    let downward = Downward { name: &name, namespace: &namespace, uid: ids::uid(), pod };
    let context = Context { downward, objects };
    let hostname = spec.hostname.clone().unwrap_or_else(|| default_hostname(&name));
    if !name.is_empty() && !is_dns_label(&hostname) {
        problems.add("spec.hostname", format!("\"{hostname}\" is no host name: {DNS_RULE}"));
    }
    let group = security::fs_group(spec.security_context.as_ref(), &mut problems);
    let volumes = volumes::volumes(spec, group, &context, &mut problems);
    let restart_policy = restart_policy(spec, &mut problems);
    let containers = containers(spec, &context, &volumes, restart_policy, &mut problems);
    let limits = limits::pod(spec.resources.as_ref(), &containers, &mut problems);
    let network = network::network(&pod.metadata, spec, &mut problems);
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    Ok(PodPlan {
        network,
        uid: context.downward.uid,
        hostname,
        domainname: None,
        share_process_namespace: spec.share_process_namespace.unwrap_or(false),
        restart_policy,
        exit_policy: ExitPolicy::Stop,
        shm_size: None,
        limits,
        cgroup_parent: None,
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

fn containers(
    spec: &PodSpec,
    context: &Context<'_>,
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
        let mut plan = self::container(container, &path, context, volumes, problems);
        plan.health = health::health(container, kind, &path, problems);
        security::apply(
            &mut plan,
            spec.security_context.as_ref(),
            container.security_context.as_ref(),
            &path,
            problems,
        );
        if spec.host_users == Some(false) {
            plan.users = Some(UsersPlan::default());
            // As kubelet mounts the volumes of such a pod: what is root's there is its root's.
            plan.mounts.iter_mut().for_each(|mount| mount.options.id_mapped = true);
        }
        plan.kind = kind;
        plan.restart = match kind {
            Kind::Sidecar => RestartPolicy::Always,
            // An init container that has succeeded is done under every policy.
            Kind::Init if policy == RestartPolicy::Always => RestartPolicy::OnFailure,
            Kind::Init | Kind::App | Kind::Ephemeral => policy,
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
    context: &Context<'_>,
    volumes: &[VolumePlan],
    problems: &mut Problems,
) -> ContainerPlan {
    let image = container.image.clone().unwrap_or_default();
    if image.is_empty() {
        problems.add(&format!("{path}.image"), "a container needs an image");
    }
    let env = Environment::of(container, path, context, problems);
    let mut secret_words = BTreeSet::new();
    let mut expanded = |words: &Option<Vec<String>>| {
        let words = words.as_ref().filter(|w| !w.is_empty())?;
        let words = words.iter().map(|word| {
            let word = env.expand(word);
            if word.secret {
                secret_words.insert(word.text.clone());
            }
            word.text
        });
        Some(words.collect())
    };
    let (entrypoint, args) = (expanded(&container.command), expanded(&container.args));
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
        pull: pull_policy(container.image_pull_policy.as_deref(), &image, &format!("{path}.imagePullPolicy"), problems),
        entrypoint,
        args,
        workdir,
        mounts: volumes::mounts(container.volume_mounts.as_deref().unwrap_or_default(), path, volumes, &env, problems),
        devices: volumes::devices(container.volume_devices.as_deref().unwrap_or_default(), path, volumes, problems),
        limits: limits::limits(container.resources.as_ref(), path, problems),
        terminal: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        stop_signal: stop_signal(container, path, problems),
        image,
        env: env.pairs,
        secret_env: env.secret,
        secret_words,
        ..ContainerPlan::default()
    }
}

fn stop_signal(container: &Container, path: &str, problems: &mut Problems) -> Option<u32> {
    let name = container.lifecycle.as_ref()?.stop_signal.as_ref()?;
    signals::parse(name).map_err(|error| problems.add(&format!("{path}.lifecycle.stopSignal"), error)).ok()
}

pub(super) fn pull_policy(policy: Option<&str>, image: &str, path: &str, problems: &mut Problems) -> PullPolicy {
    match policy {
        // Unlike Kubernetes, `latest` is not asked for again: what was loaded by hand is used, as podman does.
        None | Some("" | "IfNotPresent") => PullPolicy::Missing,
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some(other) => {
            let text = format!("\"{other}\" (of {image}) is none of Always, IfNotPresent, Never");
            problems.add(path, text);
            PullPolicy::Missing
        }
    }
}

/// A pod name may be longer than a host name and have dots; Kubernetes cuts it at 63 characters.
fn default_hostname(name: &str) -> String {
    let label = name.split('.').next().unwrap_or(name);
    label.to_owned()
}
