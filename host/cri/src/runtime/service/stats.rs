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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, SocketAddr};

    use husk_client::Usage;
    use husk_image::Store;

    use super::*;
    use crate::api::{ContainerConfig, PodSandboxConfig};
    use crate::config::Config;
    use crate::runtime::{Engine, Streams};
    use crate::state::{Container, ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord, UserRecord};

    type Labels = HashMap<String, String>;

    fn labels(app: &str) -> Labels {
        HashMap::from([("app".to_owned(), app.to_owned())])
    }

    /// Pods `aa1` (ready) and `bb1` (ended), with the containers `c11` (running) and `c22` (exited) in the first and `d11`
    /// (exited) in the second.
    async fn server() -> (tempfile::TempDir, RuntimeServer) {
        let place = tempfile::tempdir().unwrap();
        let config = Config { root: place.path().join("root"), run: place.path().join("run"), ..Config::default() };
        let engine = Engine::open(config.clone(), Store::open(config.images()).unwrap()).unwrap();
        for (id, phase, app) in [("aa1", SandboxPhase::Ready, "web"), ("bb1", SandboxPhase::NotReady, "db")] {
            let (handler, ips) = (String::new(), Vec::new());
            let record = SandboxRecord { id: id.into(), handler, created_at: 1, phase, ips, task_pid: 1 };
            let config = PodSandboxConfig { labels: labels(app), ..PodSandboxConfig::default() };
            engine.sandboxes.insert(id, Sandbox::known(&engine.sandbox_disk, config, record));
        }
        for (id, sandbox, running) in [("c11", "aa1", true), ("c22", "aa1", false), ("d11", "bb1", false)] {
            let sandbox = engine.sandbox(sandbox).unwrap();
            let phase = if running { ContainerPhase::Running { started_at: 1 } } else { ContainerPhase::Created };
            let record = ContainerRecord {
                id: id.into(),
                sandbox: sandbox.id.clone(),
                created_at: 1,
                phase,
                image_id: String::new(),
                image_ref: String::new(),
                user: UserRecord::default(),
                stop_signal: 15,
                resources: Vec::new(),
            };
            let config = ContainerConfig { labels: labels(id), ..ContainerConfig::default() };
            let container = Container::known(&engine.container_disk, sandbox, config, record);
            container.sampled.record(Usage::default());
            engine.containers.insert(id, container);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let streaming = husk_streaming::Server::bind(address, Arc::new(Streams::new(&engine))).await.unwrap();
        (place, RuntimeServer { engine, streaming: Arc::new(streaming) })
    }

    fn listed(server: &RuntimeServer, id: &str, sandbox: &str, label_selector: Labels) -> Vec<String> {
        let filter = ContainerStatsFilter { id: id.into(), pod_sandbox_id: sandbox.into(), label_selector };
        server.all_container_stats(&filter).into_iter().map(|stats| stats.attributes.unwrap().id).collect()
    }

    #[tokio::test]
    async fn containers_are_found_by_id_pod_and_labels_together() {
        let (_place, server) = server().await;
        assert_eq!(listed(&server, "", "", Labels::new()), ["c11", "c22", "d11"]);
        assert_eq!(listed(&server, "c1", "", Labels::new()), ["c11"]);
        assert_eq!(listed(&server, "", "aa", Labels::new()), ["c11", "c22"]);
        assert_eq!(listed(&server, "", "", labels("d11")), ["d11"]);
        assert_eq!(listed(&server, "c11", "aa1", labels("c11")), ["c11"]);
        for (id, sandbox, labels) in
            [("c11", "bb1", Labels::new()), ("c11", "", labels("c22")), ("x", "", Labels::new())]
        {
            assert!(listed(&server, id, sandbox, labels).is_empty(), "{id} {sandbox}");
        }
        assert!(listed(&server, "", "x", Labels::new()).is_empty());
    }

    #[tokio::test]
    async fn only_a_running_container_takes_cpu() {
        let (_place, server) = server().await;
        let all = server.all_container_stats(&ContainerStatsFilter::default());
        assert_eq!(all.iter().map(|stats| stats.cpu.is_some()).collect::<Vec<_>>(), [true, false, false]);
    }

    #[tokio::test]
    async fn a_pod_that_has_ended_is_not_listed_and_one_that_is_not_there_not_found() {
        let (_place, server) = server().await;
        let listed = |id: &str, label_selector| {
            let filter = PodSandboxStatsFilter { id: id.into(), label_selector };
            let all = server.all_sandbox_stats(&filter).into_iter();
            all.map(|stats| stats.attributes.unwrap().id).collect::<Vec<_>>()
        };
        assert_eq!(listed("", Labels::new()), ["aa1"]);
        assert_eq!(listed("a", labels("web")), ["aa1"]);
        assert!(listed("a", labels("db")).is_empty() && listed("bb1", Labels::new()).is_empty());
        assert!(matches!(server.one_sandbox_stats("bb1").await, Err(Error::FailedPrecondition(_))));
        assert!(matches!(server.one_sandbox_stats("x").await, Err(Error::NotFound(_))));
        assert!(matches!(server.one_container_stats("x").await, Err(Error::NotFound(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_does_not_answer_is_told_of_by_what_is_known() {
        let (_place, server) = server().await;
        let one = server.one_container_stats("c11").await.unwrap().stats.unwrap();
        assert!(one.cpu.is_some());
        let pod = server.one_sandbox_stats("aa1").await.unwrap().stats.unwrap().linux.unwrap();
        assert_eq!((pod.cpu, pod.memory, pod.containers.len()), (None, None, 2));
    }

    #[tokio::test]
    async fn metrics_are_of_ready_pods_and_running_containers() {
        let (_place, server) = server().await;
        let all = server.all_sandbox_metrics();
        let told = |pod: &PodSandboxMetrics| {
            let containers = pod.container_metrics.iter().map(|container| container.container_id.clone()).collect();
            (pod.pod_sandbox_id.clone(), containers)
        };
        let told: Vec<(String, Vec<String>)> = all.iter().map(told).collect();
        assert_eq!(told, [("aa1".to_owned(), vec!["c11".to_owned()])]);
    }
}
