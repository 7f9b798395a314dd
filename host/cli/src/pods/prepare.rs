//! From a plan to a pod on disk: images fetched, specs made, names taken. Nothing runs yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use husk_client::RootfsImage;
use husk_image::{Image, Lease, Progress, Store};
use jiff::Timestamp;
use oci_spec::runtime::Spec;

use super::directory::{PodDir, make_dir};
use super::plan::{ContainerPlan, ImageSource, MountSource, PodPlan, VolumePlan, VolumeSource};
use super::record::{ContainerRecord, OwnSize, Phase, PodRecord, VERSION, Wanted};
use super::{ids, observe, volumes};
use crate::engine::Engine;
use crate::images;
use crate::spec::{self, ContainerInputs, ImageFacts, Places};
use husk_spec::signals;

/// Stands where a secret would be shown.
pub(crate) const HIDDEN: &str = "***";

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
    let mut parts = Parts {
        engine,
        store: &store,
        progress,
        pod: engine.pods.open(&id),
        hostname: &plan.hostname,
        volumes: &plan.volumes,
        prefix: plan.qualified_names.then_some(plan.name.as_str()),
        images: BTreeMap::new(),
    };
    let mut containers = Vec::with_capacity(plan.containers.len());
    let mut specs = Vec::with_capacity(plan.containers.len());
    let mut leases = Vec::with_capacity(plan.containers.len());
    for wanted in &plan.containers {
        let made = container(&mut parts, &id, wanted).await?;
        specs.push((made.record.id.clone(), made.spec));
        containers.push(made.record);
        leases.extend(made.leases);
    }
    let mut record = new_record(id, plan, containers);
    record.named_volumes = volumes::ensure_all(engine, &plan.volumes, &plan.containers)?;
    for volume in &plan.volumes {
        if let VolumeSource::Host(path) = &volume.source {
            path.ensure().with_context(|| format!("volume {}", volume.name))?;
        }
    }
    // A pod that died without a word must hold no names of volumes.
    observe::all(engine).await?;
    make_dir(&engine.paths.pods())?;
    let sandbox = spec::sandbox(&record.id, plan);
    let dir = engine.pods.create(&record, &sandbox, &specs, &plan.volumes).context("cannot make the pod")?;
    Ok(Prepared { dir, record, leases })
}

/// Adds a container to a pod that exists.
pub(crate) async fn into_pod(
    engine: &Engine,
    pod: &PodRecord,
    plan: &ContainerPlan,
    progress: Arc<dyn Progress>,
) -> anyhow::Result<(ContainerRecord, Vec<Lease>)> {
    let store = engine.store()?;
    let mut parts = Parts {
        engine,
        store: &store,
        progress,
        pod: engine.pods.open(&pod.id),
        hostname: &pod.hostname,
        volumes: &[],
        prefix: None,
        images: BTreeMap::new(),
    };
    let mut made = container(&mut parts, &pod.id, plan).await?;
    made.record.joined = true;
    let names = volumes::ensure_all(engine, &[], std::slice::from_ref(plan))?;
    observe::all(engine).await?;
    engine.pods.add(&parts.pod, &made.record, &made.spec, &names).context("cannot add a container to the pod")?;
    Ok((made.record, made.leases))
}

/// What the containers of a pod are made from.
struct Parts<'a> {
    engine: &'a Engine,
    store: &'a Store,
    progress: Arc<dyn Progress>,
    pod: PodDir,
    hostname: &'a str,
    volumes: &'a [VolumePlan],
    prefix: Option<&'a str>,
    /// Those mounted as volumes so far, by reference.
    images: BTreeMap<String, Image>,
}

impl Parts<'_> {
    /// The image, fetched at its first mention.
    async fn volume_image(&mut self, wanted: &ImageSource) -> anyhow::Result<Image> {
        if let Some(image) = self.images.get(&wanted.reference) {
            return Ok(image.clone());
        }
        let image = images::ensure(self.store, &wanted.reference, wanted.pull, Arc::clone(&self.progress)).await?;
        self.images.insert(wanted.reference.clone(), image.clone());
        Ok(image)
    }

    /// The images that a container mounts as volumes.
    async fn volume_images(&mut self, plan: &ContainerPlan) -> anyhow::Result<Vec<Image>> {
        let mut images = Vec::new();
        for mount in &plan.mounts {
            let wanted = match &mount.source {
                MountSource::Image(image) => Some(image),
                MountSource::PodVolume { name } => {
                    self.volumes.iter().filter(|v| v.name == *name).find_map(|v| match &v.source {
                        VolumeSource::Image(image) => Some(image),
                        _ => None,
                    })
                }
                _ => None,
            };
            if let Some(wanted) = wanted {
                images
                    .push(self.volume_image(wanted).await.with_context(|| format!("mount at {}", mount.destination))?);
            }
        }
        Ok(images)
    }
}

struct Made {
    record: ContainerRecord,
    spec: Spec,
    leases: Vec<Lease>,
}

async fn container(parts: &mut Parts<'_>, pod_id: &str, plan: &ContainerPlan) -> anyhow::Result<Made> {
    let image = images::ensure(parts.store, &plan.image, plan.pull, Arc::clone(&parts.progress)).await?;
    let volume_images = parts.volume_images(plan).await?;
    let facts = images::facts(&image, plan)?;
    let disk = |name: &str| volumes::disk(&parts.engine.paths, name);
    let files = |name: &str| parts.pod.volume(name);
    let disk_of = |image: &Image| RootfsImage { path: image.erofs_path.clone(), devices: image.data_paths.clone() };
    let images = parts.images.iter().map(|(name, image)| (name.clone(), disk_of(image))).collect();
    let places = Places { volumes: parts.volumes, files: &files, disk: &disk, images: &images };
    let inputs = ContainerInputs { pod_id, hostname: parts.hostname, plan, image: &facts, places };
    let spec = spec::container(inputs)?;
    let command = spec.process().as_ref().and_then(|p| p.args().clone()).unwrap_or_default();
    let shown = |word: String| if plan.secret_words.contains(&word) { HIDDEN.to_owned() } else { word };
    let mut leases = Vec::with_capacity(volume_images.len().saturating_add(1));
    for image in std::iter::once(&image).chain(&volume_images) {
        leases.push(image.lease().context("cannot hold the image")?);
    }
    let record = ContainerRecord {
        id: ids::container(),
        name: parts.prefix.map_or_else(|| plan.name.clone(), |pod| format!("{pod}-{}", plan.name)),
        short_name: plan.name.clone(),
        kind: plan.kind,
        joined: false,
        image: plan.image.clone(),
        image_id: image.id.to_string(),
        volume_images: volume_images.iter().map(|image| image.id.to_string()).collect(),
        secret_env: plan.secret_env.clone(),
        rootfs: image.erofs_path.clone(),
        rootfs_devices: image.data_paths.clone(),
        command: command.into_iter().map(shown).collect(),
        created: Timestamp::now(),
        terminal: plan.terminal,
        stdin: plan.stdin,
        stop_signal: stop_signal(plan, &facts)?,
        stop_timeout: plan.stop_timeout,
        restart: plan.restart,
        auto_remove: plan.auto_remove,
        health: plan.health.clone(),
        labels: plan.labels.clone(),
        wanted: Wanted::Run,
        state: super::record::State::default(),
        supervisor: None,
    };
    Ok(Made { record, spec, leases })
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
        own_size: OwnSize { memory: plan.limits.memory, cpu_milli: plan.limits.cpu_milli },
        named_volumes: Vec::new(),
        phase: Phase::Pending,
        message: None,
        started: None,
        finished: None,
        boot: None,
        containers,
    }
}
