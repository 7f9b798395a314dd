//! What is answered of sandboxes and containers: from memory alone.

use crate::api;
use crate::api::{ContainerState, PodSandboxState};
use crate::state::{Container, ContainerPhase, Sandbox, SandboxPhase};

pub(super) fn sandbox_state(sandbox: &Sandbox) -> PodSandboxState {
    match sandbox.record.with(|record| record.phase) {
        SandboxPhase::Ready => PodSandboxState::SandboxReady,
        SandboxPhase::Making | SandboxPhase::NotReady => PodSandboxState::SandboxNotready,
    }
}

/// A line of ListPodSandbox.
pub(super) fn listed_sandbox(sandbox: &Sandbox) -> api::PodSandbox {
    let record = sandbox.record.get();
    api::PodSandbox {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox).into(),
        created_at: record.created_at,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: record.handler,
    }
}

pub(super) fn sandbox(sandbox: &Sandbox) -> api::PodSandboxStatus {
    let record = sandbox.record.get();
    let mut ips = record.ips.iter().map(ToString::to_string);
    let network = api::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| api::PodIp { ip }).collect(),
    };
    let namespaces = api::Namespace { options: Some(sandbox.namespaces()) };
    api::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox).into(),
        created_at: record.created_at,
        network: Some(network),
        linux: Some(api::LinuxPodSandboxStatus { namespaces: Some(namespaces) }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: record.handler,
    }
}

pub(super) fn container_state(phase: &ContainerPhase) -> ContainerState {
    match phase {
        ContainerPhase::Making | ContainerPhase::Created => ContainerState::ContainerCreated,
        ContainerPhase::Running { .. } => ContainerState::ContainerRunning,
        ContainerPhase::Exited { .. } => ContainerState::ContainerExited,
    }
}

/// A line of ListContainers.
pub(super) fn listed_container(container: &Container) -> api::Container {
    let record = container.record.get();
    api::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.id.clone(),
        metadata: container.config.metadata.clone(),
        image: container.config.image.clone(),
        image_ref: record.image_ref,
        state: container_state(&record.phase).into(),
        created_at: record.created_at,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        image_id: record.image_id,
    }
}

pub(super) fn container(container: &Container) -> api::ContainerStatus {
    let record = container.record.get();
    let user = api::LinuxContainerUser {
        uid: record.user.uid.into(),
        gid: record.user.gid.into(),
        supplemental_groups: record.user.groups.iter().map(|gid| i64::from(*gid)).collect(),
    };
    let mut status = api::ContainerStatus {
        id: container.id.clone(),
        metadata: container.config.metadata.clone(),
        state: container_state(&record.phase).into(),
        created_at: record.created_at,
        image: container.config.image.clone(),
        image_ref: record.image_ref,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        mounts: container.config.mounts.clone(),
        log_path: container.log_path().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        resources: Some(api::ContainerResources { linux: Some(container.resources()), windows: None }),
        image_id: record.image_id,
        user: Some(api::ContainerUser { linux: Some(user) }),
        stop_signal: stop_signal(record.stop_signal),
        ..api::ContainerStatus::default()
    };
    match record.phase {
        ContainerPhase::Making | ContainerPhase::Created => {}
        ContainerPhase::Running { started_at } => status.started_at = started_at,
        ContainerPhase::Exited { started_at, finished_at, exit_code, reason, message } => {
            status.started_at = started_at;
            status.finished_at = finished_at;
            status.exit_code = exit_code;
            status.reason = reason;
            status.message = message;
        }
    }
    status
}

/// CRI's name of a signal's number.
fn stop_signal(number: u32) -> i32 {
    let named = super::container::signal_names().find(|(_, of_name)| *of_name == number);
    named.map_or(api::Signal::RuntimeDefault, |(signal, _)| signal).into()
}

/// Whether every label that is asked for is there.
pub(super) fn has_labels(
    labels: &std::collections::HashMap<String, String>,
    wanted: &std::collections::HashMap<String, String>,
) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}
