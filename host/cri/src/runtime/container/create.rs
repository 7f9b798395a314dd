//! CreateContainer.

use std::sync::Arc;

use husk_client::{ATTACH, CreateTask, RootfsImage, Stdio};
use husk_image::{Image, Lease};
use prost::Message as _;

use super::super::{Engine, new_id, remove_directory, write_bundle};
use super::stop;
use crate::api::{ContainerConfig, ContainerEventType, ContainerMetadata, NamespaceMode, Signal};
use crate::error::Error;
use crate::spec::{self, ContainerUser, MountedImage};
use crate::state::{Container, ContainerPhase, ContainerRecord, Sandbox, now};

/// Makes a container in which nothing has run yet.
pub(in crate::runtime) async fn create_container(
    engine: Arc<Engine>,
    sandbox: Arc<Sandbox>,
    config: ContainerConfig,
) -> Result<String, Error> {
    let metadata = validate(&config)?;
    let id = new_id()?;
    let name = name_of(&metadata, &sandbox.id);
    let reserved = engine.container_names.reserve(name.clone(), &id).map_err(|holder| {
        Error::AlreadyExists(format!("container name {name:?} is reserved for {holder:?}: remove that one first"))
    })?;
    // Not while the pod is being ended.
    let _alone = sandbox.changing.lock().await;
    let shim = engine.shim(&sandbox)?;
    let image = engine.local_image(&config).await?;
    let _image_in_use = image.lease()?;
    let mounted = mounted_images(&engine, &config).await?;
    let _mounted_in_use = mounted.iter().map(|mounted| mounted.image.lease()).collect::<Result<Vec<Lease>, _>>()?;
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default();
    let user = spec::user(&context, &image)?;
    let sources = spec::prepare_mounts(&config)?;
    let spec = spec::container(spec::Inputs {
        id: &id,
        sandbox: &sandbox,
        config: &config,
        image: &image,
        user: &user,
        sources: &sources,
        mounted_images: &mounted,
        target_pid: target(&engine, &sandbox, &config).await?,
    })?;
    let record = record(&id, &sandbox, &config, &image, user)?;
    let container = Container::create(&engine.container_disk, Arc::clone(&sandbox), config, record)?;
    let bundle = engine.bundle(&id);
    let made = async {
        write_bundle(&bundle, &spec)?;
        let rootfs = vec![RootfsImage { path: image.erofs_path.clone(), devices: image.data_paths.clone() }];
        let task = CreateTask { id: id.clone(), bundle: bundle.clone(), rootfs, stdio: stdio(&container) };
        Ok::<_, Error>(shim.create(task).await?)
    };
    if let Err(error) = made.await {
        remove_directory(&bundle);
        engine.container_disk.remove(&id)?;
        return Err(error.context(format!("container {}", metadata.name)));
    }
    container.record.update(|record| record.phase = ContainerPhase::Created)?;
    engine.containers.insert(&id, Arc::clone(&container));
    reserved.keep();
    engine.tell(&sandbox, Some(&container), ContainerEventType::ContainerCreatedEvent);
    tracing::info!(pod = %sandbox.id, container = %id, name = %metadata.name, "container created");
    Ok(id)
}

fn validate(config: &ContainerConfig) -> Result<ContainerMetadata, Error> {
    let metadata = config.metadata.clone().unwrap_or_default();
    let refused = |why: String| Err(Error::InvalidArgument(format!("container config: {why}")));
    if metadata.name.is_empty() {
        return refused("metadata.name is empty; it must be set".into());
    }
    if config.image.as_ref().is_none_or(|image| image.image.is_empty()) {
        return refused("image is empty; it must be set".into());
    }
    if config.windows.is_some() {
        return refused("windows is set; the guest is Linux".into());
    }
    if let Some(device) = config.cdi_devices.first() {
        let text = format!("CDI device {:?}: CDI describes devices of the node, which a VM does not have", device.name);
        return refused(text);
    }
    let escapes =
        std::path::Path::new(&config.log_path).components().any(|part| part == std::path::Component::ParentDir);
    if escapes {
        return refused(format!("log_path = {:?}: it must stay in the pod's log directory", config.log_path));
    }
    Ok(metadata)
}

/// What makes a container that container: kubelet counts attempts up when it makes it anew.
pub(in crate::runtime) fn name_of(metadata: &ContainerMetadata, sandbox: &str) -> String {
    format!("{}_{}_{sandbox}", metadata.name, metadata.attempt)
}

impl Engine {
    /// The image that a container is to be made of; kubelet has pulled it.
    async fn local_image(&self, config: &ContainerConfig) -> Result<Image, Error> {
        let wanted = config.image.clone().unwrap_or_default();
        self.image(wanted.image).await
    }

    /// An image of the store by name or id.
    async fn image(&self, name: String) -> Result<Image, Error> {
        let store = self.images.clone();
        let found = tokio::task::spawn_blocking(move || store.get(&name)).await;
        Ok(found.map_err(|error| Error::Internal(error.to_string()))??)
    }
}

async fn mounted_images(engine: &Engine, config: &ContainerConfig) -> Result<Vec<MountedImage>, Error> {
    let mut mounted = Vec::new();
    for (index, mount) in config.mounts.iter().enumerate() {
        if let Some(wanted) = mount.image.as_ref().filter(|image| !image.image.is_empty()) {
            let image = engine.image(wanted.image.clone()).await;
            let image = image.map_err(|error| error.context(format!("mount at {:?}", mount.container_path)))?;
            mounted.push(MountedImage { index, image });
        }
    }
    Ok(mounted)
}

/// The pid of the container whose processes are to be seen.
async fn target(engine: &Engine, sandbox: &Arc<Sandbox>, config: &ContainerConfig) -> Result<Option<u32>, Error> {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let Some(options) = context.and_then(|context| context.namespace_options.as_ref()) else { return Ok(None) };
    if options.pid != i32::from(NamespaceMode::Target) {
        return Ok(None);
    }
    let target = engine.container(&options.target_id)?;
    if target.sandbox.id != sandbox.id || !target.phase().is_running() {
        let text = format!("target container {} is not a running container of pod {}", target.id, sandbox.id);
        return Err(Error::FailedPrecondition(text));
    }
    Ok(Some(engine.shim(sandbox)?.state(&target.id, None).await?.pid))
}

fn record(
    id: &str,
    sandbox: &Sandbox,
    config: &ContainerConfig,
    image: &Image,
    user: ContainerUser,
) -> Result<ContainerRecord, Error> {
    let of_image = image.config.config().as_ref().and_then(|config| config.stop_signal().clone());
    let stop_signal = match Signal::try_from(config.stop_signal) {
        Ok(Signal::RuntimeDefault) => stop::of_image(of_image.as_deref())?,
        Ok(signal) => stop::number(signal)?,
        Err(_) => return Err(Error::InvalidArgument(format!("stop_signal = {}: there is none", config.stop_signal))),
    };
    let limits = config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
    Ok(ContainerRecord {
        id: id.to_owned(),
        sandbox: sandbox.id.clone(),
        created_at: now(),
        phase: ContainerPhase::Making,
        image_id: image.id.to_string(),
        image_ref: image.id.to_string(),
        user: user.ids,
        stop_signal,
        resources: limits.encode_to_vec(),
    })
}

/// Output goes to the log that kubelet names, if it names one; input is what attached clients write.
fn stdio(container: &Container) -> Stdio {
    let log = container.log_path().map_or_else(|| ATTACH.to_owned(), |path| format!("cri-log://{}", path.display()));
    let config = &container.config;
    Stdio {
        stdin: config.stdin.then(|| ATTACH.to_owned()),
        stderr: (!config.tty).then(|| log.clone()),
        stdout: Some(log),
        terminal: config.tty,
    }
}
