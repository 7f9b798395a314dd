//! Taking up what an earlier huskd left: killed at any moment, it may have left things half made, and the pods have gone
//! on meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join_all;
use husk_client::{ConnectError, ContainerInspect, Shim, ShimLauncher, Status};

use super::container::{Ended, watch_container};
use super::sandbox::{name_of as sandbox_name, watch_sandbox};
use super::{Engine, NAMESPACE, container, remove_directory};
use crate::api::{ContainerConfig, PodSandboxConfig};
use crate::config::Handler;
use crate::state::{
    Container, ContainerPhase, ContainerRecord, Sandbox, SandboxPhase, SandboxRecord, nanoseconds, now,
};

impl Engine {
    /// Reads what is on disk, asks the shims what has happened, ends what was half done and removes what is nobody's.
    ///
    /// # Errors
    ///
    /// When the records cannot be read.
    pub async fn recover(self: &Arc<Self>) -> std::io::Result<()> {
        // FIFOs of requests whose clients went with the earlier daemon.
        remove_directory(&self.streams());
        crate::state::Disk::open(self.streams())?;
        let sandboxes = self.sandbox_disk.load::<PodSandboxConfig, SandboxRecord>()?;
        let containers = self.container_disk.load::<ContainerConfig, ContainerRecord>()?;
        let mut by_sandbox: HashMap<String, Vec<_>> = HashMap::new();
        for (config, record) in containers {
            by_sandbox.entry(record.sandbox.clone()).or_default().push((config, record));
        }
        let taken_up = sandboxes.into_iter().map(|(config, record)| {
            let containers = by_sandbox.remove(&record.id).unwrap_or_default();
            self.take_up(config, record, containers)
        });
        join_all(taken_up.collect::<Vec<_>>()).await;
        for (_, record) in by_sandbox.into_values().flatten() {
            tracing::warn!(pod = %record.sandbox, container = %record.id, "its pod is not known: removed");
            self.container_disk.remove(&record.id)?;
        }
        self.remove_orphans().await;
        Ok(())
    }

    async fn take_up(
        self: &Arc<Self>,
        config: PodSandboxConfig,
        record: SandboxRecord,
        containers: Vec<(ContainerConfig, ContainerRecord)>,
    ) {
        let sandbox = Sandbox::known(&self.sandbox_disk, config, record);
        let phase = sandbox.record.with(|record| record.phase);
        if phase == SandboxPhase::Making {
            tracing::info!(pod = %sandbox.id, "it was being made when huskd ended: undone");
            self.undo(&sandbox, &self.handler_of(&sandbox)).await;
            self.forget(&sandbox);
            return;
        }
        let shim = self.running_shim(&sandbox).await;
        let seen = match &shim {
            Some(shim) => shim.inspect().await.map(|inspect| inspect.containers).unwrap_or_default(),
            None => Vec::new(),
        };
        sandbox.set_shim(shim.clone());
        if let Ok(reserved) = self.sandbox_names.reserve(sandbox_name(&sandbox.metadata()), &sandbox.id) {
            reserved.keep();
        }
        self.sandboxes.insert(&sandbox.id, Arc::clone(&sandbox));
        for (config, record) in containers {
            let container = Container::known(&self.container_disk, Arc::clone(&sandbox), config, record);
            let seen = seen.iter().find(|other| other.id == container.id);
            self.take_up_container(&container, shim.as_ref(), seen).await;
        }
        match shim {
            Some(shim) if phase == SandboxPhase::Ready => {
                tracing::info!(pod = %sandbox.id, "pod taken up");
                watch_sandbox(self, &sandbox, shim);
            }
            _ => self.not_ready(&sandbox),
        }
    }

    /// The shim of a pod whose VM runs.
    async fn running_shim(&self, sandbox: &Sandbox) -> Option<Shim> {
        match Shim::connect(&self.dirs, NAMESPACE, &sandbox.id).await {
            Ok(shim) => {
                let state = shim.state(&sandbox.id, None).await.ok()?;
                matches!(state.status, Status::Running | Status::Created).then_some(shim)
            }
            Err(ConnectError::NotRunning { .. }) => None,
            Err(error) => {
                tracing::warn!(pod = %sandbox.id, "{error}");
                None
            }
        }
    }

    async fn take_up_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        shim: Option<&Shim>,
        seen: Option<&ContainerInspect>,
    ) {
        let phase = container.phase();
        if phase == ContainerPhase::Making {
            tracing::info!(container = %container.id, "it was being made when huskd ended: undone");
            if let Some(shim) = shim {
                // It never ran; that it is not there at all is as good.
                let _ = shim.delete(&container.id, None).await;
            }
            remove_directory(&self.bundle(&container.id));
            if let Err(error) = self.container_disk.remove(&container.id) {
                tracing::error!(container = %container.id, "it cannot be forgotten: {error}");
            }
            return;
        }
        let name = container::name_of(&container.metadata(), &container.sandbox.id);
        if let Ok(reserved) = self.container_names.reserve(name, &container.id) {
            reserved.keep();
        }
        self.containers.insert(&container.id, Arc::clone(container));
        match (&phase, seen, shim) {
            (ContainerPhase::Exited { .. }, ..) => {}
            (_, Some(seen), Some(shim)) => self.catch_up(container, seen, shim),
            // With its pod's end nobody could see how it ended.
            _ => self.exited(container, Ended::unseen()),
        }
    }

    /// What has become of a container meanwhile.
    fn catch_up(self: &Arc<Self>, container: &Arc<Container>, seen: &ContainerInspect, shim: &Shim) {
        match (seen.status, seen.exit) {
            (Status::Running | Status::Paused, _) => {
                let noted = container.record.update(|record| {
                    // Started in the very moment in which huskd ended.
                    if record.phase == ContainerPhase::Created {
                        record.phase = ContainerPhase::Running { started_at: now() };
                    }
                });
                if let Err(error) = noted {
                    tracing::error!(container = %container.id, "its start cannot be written down: {error}");
                }
                watch_container(self, container, shim.clone());
            }
            (Status::Stopped, Some(exit)) => {
                // Started in the very moment in which huskd ended, it has run all the same: at its end at the latest.
                let noted = container.record.update(|record| {
                    if record.phase == ContainerPhase::Created {
                        record.phase = ContainerPhase::Running { started_at: nanoseconds(exit.at) };
                    }
                });
                if let Err(error) = noted {
                    tracing::error!(container = %container.id, "its start cannot be written down: {error}");
                }
                self.exited(container, Ended { exit, oom: seen.oom_kills > 0, seen: true });
            }
            (Status::Created, _) => {}
            (Status::Stopped | Status::Unknown, _) => self.exited(container, Ended::unseen()),
        }
    }

    fn forget(&self, sandbox: &Sandbox) {
        if let Err(error) = self.sandbox_disk.remove(&sandbox.id) {
            tracing::error!(pod = %sandbox.id, "it cannot be forgotten: {error}");
        }
    }

    /// Shims and bundles that no record knows.
    async fn remove_orphans(&self) {
        let shims = self.config.run.join("shim").join(NAMESPACE);
        let data = self.config.root.join("pods").join(NAMESPACE);
        let mut orphans: Vec<String> = [shims, data].iter().flat_map(|directory| names(directory)).collect();
        orphans.sort();
        orphans.dedup();
        orphans.retain(|id| self.sandboxes.find(id).is_none());
        if let Ok(launcher) = self.launcher(&Handler::default()) {
            join_all(orphans.iter().map(|id| self.remove_orphan(&launcher, id))).await;
        }
        for id in names(&self.bundles()) {
            if self.sandboxes.find(&id).is_none() && self.containers.find(&id).is_none() {
                remove_directory(&self.bundle(&id));
            }
        }
    }

    async fn remove_orphan(&self, launcher: &ShimLauncher, id: &str) {
        tracing::warn!(pod = %id, "no record knows it: it is ended");
        launcher.purge(id, &self.bundle(id)).await;
        self.pod_network(id).detach().await;
    }
}

/// The names in a directory; none when there is no such directory.
fn names(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
