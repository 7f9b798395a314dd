//! Requests about what pods and containers take.

use std::sync::Arc;

use super::RuntimeServer;
use crate::api::{
    ContainerStats, ContainerStatsFilter, ContainerStatsResponse, MetricDescriptor, PodSandboxMetrics, PodSandboxStats,
    PodSandboxStatsFilter, PodSandboxStatsResponse,
};
use crate::error::Error;
use crate::runtime::status;
use crate::state::Sandbox;
use crate::stats;

impl RuntimeServer {
    pub(super) async fn one_container_stats(&self, id: &str) -> Result<ContainerStatsResponse, Error> {
        let container = self.engine.container(id)?;
        self.engine.interest.asked();
        stats::freshen(&container.sandbox, Some(&container)).await;
        Ok(ContainerStatsResponse { stats: Some(stats::container(&container, self.engine.images.root())) })
    }

    /// Containers that do not run are there too, with less.
    pub(super) fn all_container_stats(&self, filter: &ContainerStatsFilter) -> Vec<ContainerStats> {
        self.engine.interest.asked();
        let images = self.engine.images.root();
        let mut all = self.select(&filter.id, &filter.pod_sandbox_id);
        all.retain(|container| status::has_labels(&container.config.labels, &filter.label_selector));
        all.iter().map(|container| stats::container(container, images)).collect()
    }

    pub(super) async fn one_sandbox_stats(&self, id: &str) -> Result<PodSandboxStatsResponse, Error> {
        let sandbox = self.engine.sandbox(id)?;
        if !sandbox.is_ready() {
            return Err(Error::FailedPrecondition(format!("pod {} has ended: it takes nothing", sandbox.id)));
        }
        self.engine.interest.asked();
        stats::freshen(&sandbox, None).await;
        Ok(PodSandboxStatsResponse { stats: Some(self.stats_of(&sandbox)) })
    }

    pub(super) fn all_sandbox_stats(&self, filter: &PodSandboxStatsFilter) -> Vec<PodSandboxStats> {
        self.engine.interest.asked();
        let mut all = self.select_sandboxes(&filter.id);
        all.retain(|sandbox| sandbox.is_ready() && status::has_labels(&sandbox.config.labels, &filter.label_selector));
        all.iter().map(|sandbox| self.stats_of(sandbox)).collect()
    }

    fn stats_of(&self, sandbox: &Sandbox) -> PodSandboxStats {
        stats::sandbox(sandbox, &self.engine.containers_of(&sandbox.id), self.engine.images.root())
    }

    pub(super) fn metric_descriptors(&self) -> Vec<MetricDescriptor> {
        // Who asks for their names will ask for the metrics.
        self.engine.interest.asked();
        stats::metrics::descriptors()
    }

    pub(super) fn all_sandbox_metrics(&self) -> Vec<PodSandboxMetrics> {
        self.engine.interest.asked();
        let mut all = self.engine.sandboxes.all();
        all.retain(|sandbox| sandbox.is_ready());
        let of = |sandbox: &Arc<Sandbox>| stats::metrics::sandbox(sandbox, &self.engine.containers_of(&sandbox.id));
        all.iter().map(of).collect()
    }
}
