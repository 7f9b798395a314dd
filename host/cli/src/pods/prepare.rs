//! From a plan to a pod on disk: images fetched, specs made, names taken. Nothing runs yet.

use std::sync::Arc;

use anyhow::Context as _;
use husk_image::{Lease, Progress, Store};
use jiff::Timestamp;
use oci_spec::runtime::Spec;

use super::directory::{PodDir, make_dir};
use super::plan::{ContainerPlan, MountSource, PodPlan, VolumePlan};
use super::record::{ContainerRecord, Phase, PodRecord, VERSION, Wanted};
use super::{ids, observe, volumes};
use crate::engine::Engine;
use crate::images;
use crate::spec::{self, ContainerInputs, ImageFacts};
use crate::terminal::signals;

/// A pod that is ready to be booted.
pub(crate) struct Prepared {
    pub(crate) dir: PodDir,
    pub(crate) record: PodRecord,
    /// Keep the images from being removed until the VM has them.
    pub(crate) leases: Vec<Lease>,
}

/// Makes the pod's directory, complete or not at all.
pub(crate) async fn pod(engine: &Engine, plan: &PodPlan, progress: Arc<dyn Progress>) -> anyhow::Result<Prepared> {
    let store = engine.store()?;
    let id = ids::pod();
    let mut containers = Vec::with_capacity(plan.containers.len());
    let mut specs = Vec::with_capacity(plan.containers.len());
    let mut leases = Vec::with_capacity(plan.containers.len());
    let prefix = plan.qualified_names.then_some(plan.name.as_str());
    let parts = Parts { pod_id: &id, hostname: &plan.hostname, volumes: &plan.volumes, prefix };
    for wanted in &plan.containers {
        let made = container(engine, &store, &parts, wanted, Arc::clone(&progress)).await?;
        specs.push((made.record.id.clone(), made.spec));
        containers.push(made.record);
        leases.push(made.lease);
    }
    let mut record = new_record(id, plan, containers);
    record.named_volumes = volumes::ensure_all(engine, &plan.containers)?;
    // A pod that died without a word must hold no names of volumes.
    observe::all(engine).await?;
    make_dir(&engine.paths.pods())?;
    let sandbox = spec::sandbox(&record.id, plan);
    let dir = engine.pods.create(&record, &sandbox, &specs).context("cannot make the pod")?;
    Ok(Prepared { dir, record, leases })
}

/// Adds a container to a pod that exists.
pub(crate) async fn into_pod(
    engine: &Engine,
    pod: &PodRecord,
    plan: &ContainerPlan,
    progress: Arc<dyn Progress>,
) -> anyhow::Result<(ContainerRecord, Lease)> {
    let store = engine.store()?;
    let parts = Parts { pod_id: &pod.id, hostname: &pod.hostname, volumes: &[], prefix: None };
    let made = container(engine, &store, &parts, plan, progress).await?;
    let names = volumes::ensure_all(engine, std::slice::from_ref(plan))?;
    observe::all(engine).await?;
    let dir = engine.pods.open(&pod.id);
    engine.pods.add(&dir, &made.record, &made.spec, &names).context("cannot add a container to the pod")?;
    Ok((made.record, made.lease))
}

struct Parts<'a> {
    pod_id: &'a str,
    hostname: &'a str,
    volumes: &'a [VolumePlan],
    prefix: Option<&'a str>,
}

struct Made {
    record: ContainerRecord,
    spec: Spec,
    lease: Lease,
}

async fn container(
    engine: &Engine,
    store: &Store,
    parts: &Parts<'_>,
    plan: &ContainerPlan,
    progress: Arc<dyn Progress>,
) -> anyhow::Result<Made> {
    let image = images::ensure(store, &plan.image, plan.pull, progress).await?;
    let facts = images::facts(&image, plan)?;
    let disk = |name: &str| volumes::disk(&engine.paths, name);
    let inputs = ContainerInputs {
        pod_id: parts.pod_id,
        hostname: parts.hostname,
        volumes: parts.volumes,
        plan,
        image: &facts,
        disk: &disk,
    };
    let spec = spec::container(inputs)?;
    let command = spec.process().as_ref().and_then(|p| p.args().clone()).unwrap_or_default();
    let record = ContainerRecord {
        id: ids::container(),
        name: parts.prefix.map_or_else(|| plan.name.clone(), |pod| format!("{pod}-{}", plan.name)),
        short_name: plan.name.clone(),
        kind: plan.kind,
        image: plan.image.clone(),
        image_id: image.id.to_string(),
        rootfs: image.erofs_path.clone(),
        command,
        created: Timestamp::now(),
        terminal: plan.terminal,
        stdin: plan.stdin,
        stop_signal: stop_signal(plan, &facts)?,
        stop_timeout: plan.stop_timeout,
        restart: plan.restart,
        auto_remove: plan.auto_remove,
        labels: plan.labels.clone(),
        wanted: Wanted::Run,
        state: super::record::State::default(),
        supervisor: None,
    };
    Ok(Made { record, spec, lease: image.lease().context("cannot hold the image")? })
}

fn stop_signal(plan: &ContainerPlan, facts: &ImageFacts) -> anyhow::Result<u32> {
    match (plan.stop_signal, facts.stop_signal.as_deref().filter(|s| !s.is_empty())) {
        (Some(signal), _) => Ok(signal),
        (None, Some(name)) => {
            signals::parse(name).with_context(|| format!("image {}: its StopSignal cannot be used", plan.image))
        }
        (None, None) => Ok(signals::TERM),
    }
}

fn new_record(id: String, plan: &PodPlan, containers: Vec<ContainerRecord>) -> PodRecord {
    PodRecord {
        version: VERSION,
        id,
        name: plan.name.clone(),
        namespace: plan.namespace.clone(),
        uid: plan.uid.clone(),
        hostname: plan.hostname.clone(),
        created: Timestamp::now(),
        share_process_namespace: plan.share_process_namespace,
        restart_policy: plan.restart_policy,
        exit_policy: plan.exit_policy,
        private: plan.private,
        labels: plan.labels.clone(),
        annotations: plan.annotations.clone(),
        network: plan.network.clone(),
        ips: Vec::new(),
        network_ms: None,
        named_volumes: Vec::new(),
        phase: Phase::Pending,
        message: None,
        started: None,
        finished: None,
        boot: None,
        containers,
    }
}

/// Names of the persistent volumes that a container mounts.
pub(crate) fn named_volumes(plan: &ContainerPlan) -> impl Iterator<Item = &str> {
    plan.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::NamedVolume { name } => Some(name.as_str()),
        _ => None,
    })
}
