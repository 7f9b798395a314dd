//! PodSandboxStats.

use std::path::Path;
use std::sync::Arc;

use super::convert::{network, number, pod_cpu, pod_memory};
use crate::api::{LinuxPodSandboxStats, PodSandboxAttributes, PodSandboxStats, ProcessUsage};
use crate::state::{Container, Sandbox};

/// What a pod takes by its last sample: CPU and memory of the host, for its VM, and of its guest what only that knows.
/// `containers` are the pod's.
pub(crate) fn sandbox(sandbox: &Sandbox, containers: &[Arc<Container>], images: &Path) -> PodSandboxStats {
    let attributes = PodSandboxAttributes {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
    };
    let (host, guest) = (sandbox.samples.host.last(), sandbox.samples.guest.last());
    let linux = LinuxPodSandboxStats {
        cpu: host.as_deref().and_then(pod_cpu),
        memory: host.as_deref().map(pod_memory),
        network: guest.as_deref().map(network),
        process: guest.map(|guest| ProcessUsage { timestamp: guest.at, process_count: number(guest.value.threads) }),
        containers: containers.iter().map(|container| super::container(container, images)).collect(),
        // The host keeps none for the VM.
        io: None,
    };
    PodSandboxStats { attributes: Some(attributes), linux: Some(linux), windows: None }
}
