//! RunPodSandbox.

use std::sync::Arc;

use husk_client::{CreateTask, Shim};

use super::super::{Engine, new_id, remove_directory, write_bundle};
use super::watch_sandbox;
use crate::api::{ContainerEventType, PodSandboxConfig, PodSandboxMetadata};
use crate::config::Handler;
use crate::error::Error;
use crate::spec;
use crate::state::{Sandbox, SandboxPhase, SandboxRecord, now};

/// Makes a pod, ready or not at all.
pub(in crate::runtime) async fn run_sandbox(
    engine: Arc<Engine>,
    config: PodSandboxConfig,
    handler: String,
) -> Result<String, Error> {
    let metadata = spec::validate_sandbox(&config)?;
    let settings = engine.config.handler(&handler).ok_or_else(|| {
        let known = engine.config.handler_names().join(", ");
        Error::InvalidArgument(format!("runtime handler {handler:?} is not configured; there are:{known}"))
    })?;
    let id = new_id()?;
    let name = name_of(&metadata);
    let reserved = engine.sandbox_names.reserve(name.clone(), &id).map_err(|holder| {
        Error::AlreadyExists(format!("pod sandbox name {name:?} is reserved for {holder:?}: remove that one first"))
    })?;
    let record = SandboxRecord {
        id: id.clone(),
        handler,
        created_at: now(),
        phase: SandboxPhase::Making,
        ips: Vec::new(),
        task_pid: 0,
    };
    let sandbox = Sandbox::create(&engine.sandbox_disk, config, record)?;
    if let Err(error) = make(&engine, &sandbox, &settings).await {
        engine.undo(&sandbox, &settings).await;
        engine.sandbox_disk.remove(&id)?;
        return Err(error.context(format!("pod {}/{}", metadata.namespace, metadata.name)));
    }
    engine.sandboxes.insert(&id, Arc::clone(&sandbox));
    reserved.keep();
    engine.tell(&sandbox, None, ContainerEventType::ContainerCreatedEvent);
    engine.tell(&sandbox, None, ContainerEventType::ContainerStartedEvent);
    tracing::info!(pod = %id, name = %metadata.name, namespace = %metadata.namespace, "pod is ready");
    Ok(id)
}

/// The network first, since the VM is made for it, then the VM.
async fn make(engine: &Arc<Engine>, sandbox: &Arc<Sandbox>, handler: &Handler) -> Result<(), Error> {
    let ips = engine.attach(sandbox).await?;
    sandbox.record.update(|record| record.ips = ips)?;
    let bundle = engine.bundle(&sandbox.id);
    let netns = engine.pod_network(&sandbox.id).netns();
    let spec = spec::sandbox(&sandbox.id, &sandbox.config, handler, &engine.config, &netns);
    write_bundle(&bundle, &spec)?;
    let shim = engine.launcher(handler)?.launch(&sandbox.id, &bundle).await?;
    let task = CreateTask { id: sandbox.id.clone(), bundle, ..CreateTask::default() };
    let pid = shim.create(task).await?;
    if let Err(error) = shim.start(&sandbox.id).await {
        return Err(why_it_ended(&shim).await.unwrap_or_else(|| error.into()));
    }
    sandbox.set_shim(Some(shim.clone()));
    sandbox.record.update(|record| {
        record.task_pid = pid;
        record.phase = SandboxPhase::Ready;
    })?;
    watch_sandbox(engine, sandbox, shim);
    Ok(())
}

/// The VM was up and is not any more: why, only the shim knows.
async fn why_it_ended(shim: &Shim) -> Option<Error> {
    let why = shim.inspect().await.ok()?.vm_ended?;
    Some(Error::Internal(format!("the pod's VM ended right away: {why}")))
}

impl Engine {
    /// Ends whatever there is of a pod's VM and network. Idempotent; never fails.
    pub(in crate::runtime) async fn undo(&self, sandbox: &Sandbox, handler: &Handler) {
        sandbox.set_shim(None);
        let bundle = self.bundle(&sandbox.id);
        match self.launcher(handler) {
            Ok(launcher) => launcher.purge(&sandbox.id, &bundle).await,
            Err(error) => tracing::warn!(pod = %sandbox.id, "its remains cannot be removed: {error}"),
        }
        // Last: the VMM has held the tap.
        self.pod_network(&sandbox.id).detach().await;
        remove_directory(&bundle);
    }
}

/// What makes a pod that pod: kubelet counts attempts up when it makes it anew.
pub(in crate::runtime) fn name_of(metadata: &PodSandboxMetadata) -> String {
    let PodSandboxMetadata { name, namespace, uid, attempt } = metadata;
    format!("{name}_{namespace}_{uid}_{attempt}")
}
