//! A container's spec.

use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;

use husk_image::Image;
use husk_spec::{annotation, defaults};
use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespace, LinuxNamespaceType, Root, Spec,
};

use super::mounts::{self, MountedImage};
use super::user::ContainerUser;
use super::{mode, process, resources, security};
use crate::api::{ContainerConfig, Device, LinuxContainerResources, LinuxContainerSecurityContext, NamespaceMode};
use crate::error::Error;
use crate::state::Sandbox;

/// What a container is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub id: &'a str,
    pub sandbox: &'a Sandbox,
    pub config: &'a ContainerConfig,
    pub image: &'a Image,
    pub user: &'a ContainerUser,
    /// The mounts' sources on the host, from [`mounts::prepare`].
    pub sources: &'a [PathBuf],
    pub mounted_images: &'a [MountedImage],
    /// The pid of the container whose processes are to be seen (`kubectl debug --target`).
    pub target_pid: Option<u32>,
}

/// The spec of a container.
///
/// # Errors
///
/// [`Error::InvalidArgument`] with the field of the request.
pub fn container(inputs: Inputs<'_>) -> Result<Spec, Error> {
    let Inputs { id, sandbox, config, image, user, .. } = inputs;
    let none = LinuxContainerSecurityContext::default();
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()).unwrap_or(&none);
    security::check_linux(context)?;
    let capabilities = security::capabilities(context, user.ids.uid)?;
    let bounding = capabilities.bounding().clone().unwrap_or_default();
    let process = process::first(config, image, user, capabilities, &sandbox.hostname())?;
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(context.readonly_rootfs));
    let (nodes, mut rules) = devices(&config.devices)?;
    if context.privileged {
        rules.insert(0, defaults::all_devices());
    }
    let no_limits = LinuxContainerResources::default();
    let limits = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()).unwrap_or(&no_limits);
    let mut limits = resources::resources(limits);
    limits.set_devices((!rules.is_empty()).then_some(rules));
    let users = context.namespace_options.as_ref().and_then(|options| options.userns_options.as_ref());
    let users = security::user_namespace(users)?;
    let shown = |paths: &[String]| (!context.privileged).then(|| paths.to_vec());
    let mut linux = Linux::default();
    linux
        .set_devices((!nodes.is_empty()).then_some(nodes))
        .set_namespaces(Some(namespaces(&inputs, context, users.is_some())?))
        .set_resources(Some(limits))
        .set_seccomp(security::seccomp(context, &bounding)?)
        // Said in any case: an absent list would be the crate's own.
        .set_masked_paths(shown(&context.masked_paths))
        .set_readonly_paths(shown(&context.readonly_paths));
    if let Some((uids, gids)) = users {
        linux.set_uid_mappings(Some(uids)).set_gid_mappings(Some(gids));
    }
    let name = config.metadata.as_ref().map(|metadata| metadata.name.as_str()).unwrap_or_default();
    let annotations = [
        (annotation::CONTAINER_TYPE, "container"),
        (annotation::SANDBOX_ID, &sandbox.id),
        (annotation::CONTAINER_NAME, name),
    ];
    let annotations = annotations.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mounts = mounts::all(config, inputs.sources, inputs.mounted_images, context.privileged);
    let mounts = mounts.map_err(|error| error.context(format!("container {id}")))?;
    let mut spec = Spec::default();
    spec.set_version("1.2.0".to_owned())
        .set_root(Some(root))
        .set_process(Some(process))
        .set_mounts(Some(mounts))
        .set_hostname(None)
        .set_linux(Some(linux))
        .set_annotations(Some(annotations.collect::<HashMap<_, _>>()));
    Ok(spec)
}

fn namespaces(
    inputs: &Inputs<'_>,
    context: &LinuxContainerSecurityContext,
    users: bool,
) -> Result<Vec<LinuxNamespace>, Error> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let options = context.namespace_options.clone().unwrap_or_default();
    if mode("namespace_options.network", options.network)? == NamespaceMode::Node {
        return Err(Error::InvalidArgument("namespace_options.network = NODE: a VM has a network of its own".into()));
    }
    if mode("namespace_options.ipc", options.ipc)? == NamespaceMode::Node {
        return Err(Error::InvalidArgument("namespace_options.ipc = NODE: a VM has its own shared memory".into()));
    }
    let of_task = |pid: u32| Some(PathBuf::from(format!("/proc/{pid}/ns/pid")));
    // `None`: the guest's own processes; `Some(None)`: a new namespace.
    let pids = match mode("namespace_options.pid", options.pid)? {
        NamespaceMode::Node => None,
        NamespaceMode::Container => Some(None),
        NamespaceMode::Pod => Some(of_task(inputs.sandbox.record.with(|record| record.task_pid))),
        NamespaceMode::Target => match inputs.target_pid {
            Some(pid) => Some(of_task(pid)),
            None => return Err(Error::InvalidArgument("namespace_options.target_id names no container".into())),
        },
    };
    let own = [Network, Ipc, Uts, Mount, Cgroup].into_iter().chain(users.then_some(User)).map(|typ| (typ, None));
    let all = own.chain(pids.map(|path| (Pid, path))).map(|(typ, path)| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ).set_path(path);
        namespace
    });
    Ok(all.collect())
}

/// Block devices of the host: a node for each, and a rule that allows it.
fn devices(wanted: &[Device]) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>), Error> {
    let all: Result<Vec<_>, Error> = wanted.iter().map(device).collect();
    Ok(all?.into_iter().unzip())
}

fn device(wanted: &Device) -> Result<(LinuxDevice, LinuxDeviceCgroup), Error> {
    let refused = |why: &str| Error::InvalidArgument(format!("device {:?}: {why}", wanted.host_path));
    let metadata = std::fs::metadata(&wanted.host_path).map_err(|error| refused(&error.to_string()))?;
    if !metadata.file_type().is_block_device() {
        return Err(refused("it is no block device, and no other devices of the node can be given to a VM"));
    }
    if !wanted.permissions.chars().all(|letter| "rwm".contains(letter)) {
        return Err(refused("permissions are made of the letters r, w and m"));
    }
    let (major, minor) = (rustix::fs::major(metadata.rdev()).into(), rustix::fs::minor(metadata.rdev()).into());
    let mut node = LinuxDevice::default();
    node.set_path(PathBuf::from(&wanted.container_path))
        .set_typ(LinuxDeviceType::B)
        .set_major(major)
        .set_minor(minor)
        .set_file_mode(Some(metadata.mode() & 0o777))
        .set_uid(Some(metadata.uid()))
        .set_gid(Some(metadata.gid()));
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(LinuxDeviceType::B))
        .set_major(Some(major))
        .set_minor(Some(minor))
        .set_access(Some(wanted.permissions.clone()));
    Ok((node, rule))
}
