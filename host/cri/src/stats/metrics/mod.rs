//! cAdvisor's metrics of pods and containers, which kubelet serves at `/metrics/cadvisor` as they are (kubelet
//! `pkg/kubelet/metrics/collectors/cri_metrics.go`): names, labels and units are cAdvisor's, so that what was made for
//! them goes on working.
//!
//! CRI's values are whole numbers, so seconds are whole seconds. A metric whose number is not known is left out. No two
//! values have the same name and labels, whatever a guest says: one such pair would fail the whole of kubelet's answer.

mod container;
mod family;
mod names;
mod sandbox;

use std::sync::Arc;

use crate::api::{MetricDescriptor, PodSandboxMetrics};
use crate::state::{Container, Sandbox};

/// Every metric that there can be.
#[must_use]
pub fn descriptors() -> Vec<MetricDescriptor> {
    names::descriptors()
}

/// The metrics of a pod and of its running containers, as far as they have been looked at.
pub(crate) fn sandbox(sandbox: &Sandbox, containers: &[Arc<Container>]) -> PodSandboxMetrics {
    PodSandboxMetrics {
        pod_sandbox_id: sandbox.id.clone(),
        metrics: sandbox::metrics(sandbox),
        container_metrics: containers.iter().filter_map(|container| container::metrics(container)).collect(),
    }
}
