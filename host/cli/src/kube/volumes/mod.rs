//! `volumes` of a pod, and `volumeMounts` and `volumeDevices` of its containers.

mod devices;
mod files;
mod mounts;

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource, PersistentVolumeClaimVolumeSource, PodSpec, Volume,
};

use super::convert::{Context, Problems, pull_policy};
use super::limits::checked;
use super::names::{DNS_RULE, is_dns_label};
use super::quantity;
use crate::pods::plan::{HostPath, HostPathKind, ImageSource, Medium, VolumePlan, VolumeSource};
use crate::pods::volumes::is_name;

pub(super) use devices::devices;
pub(super) use mounts::mounts;

/// All volumes of the pod. `group` is its fsGroup.
pub(super) fn volumes(
    spec: &PodSpec,
    group: Option<u32>,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Vec<VolumePlan> {
    let mut plans: Vec<VolumePlan> = Vec::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("spec.volumes[{index}]");
        if !is_dns_label(&volume.name) {
            problems.add(&format!("{path}.name"), format!("\"{}\" is no volume name: {DNS_RULE}", volume.name));
        } else if plans.iter().any(|p| p.name == volume.name) {
            problems.add(&format!("{path}.name"), format!("there are two volumes named {}", volume.name));
        }
        let source = source(volume, group, &path, context, problems);
        if group.is_some() && matches!(source, Some(VolumeSource::Named { .. })) {
            let text = format!(
                "volume {} cannot be given to a group yet: remove fsGroup, or have an init container change the group",
                volume.name
            );
            problems.add("spec.securityContext.fsGroup", text);
        }
        // What is wrong has been told; its mounts need not be complained about too.
        let source = source.unwrap_or(VolumeSource::Empty { medium: Medium::Disk, size: None, group: None });
        plans.push(VolumePlan { name: volume.name.clone(), source });
    }
    plans
}

fn source(
    volume: &Volume,
    group: Option<u32>,
    path: &str,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<VolumeSource> {
    let given = [
        volume.empty_dir.is_some(),
        volume.host_path.is_some(),
        volume.config_map.is_some(),
        volume.secret.is_some(),
        volume.projected.is_some(),
        volume.downward_api.is_some(),
        volume.image.is_some(),
        volume.persistent_volume_claim.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        problems.add(path, "a volume has one source");
        return None;
    }
    if let Some(host) = &volume.host_path {
        return host_path(host, &format!("{path}.hostPath"), problems);
    }
    if let Some(image) = &volume.image {
        return Some(self::image(image, &format!("{path}.image"), problems));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return self::claim(claim, &format!("{path}.persistentVolumeClaim"), problems);
    }
    if let Some(payload) = files::payload(volume, path, context, problems) {
        return Some(VolumeSource::Files { payload, group });
    }
    // No source at all is an emptyDir, as in Kubernetes' defaults.
    let empty = EmptyDirVolumeSource::default();
    Some(empty_dir(volume.empty_dir.as_ref().unwrap_or(&empty), group, &format!("{path}.emptyDir"), problems))
}

fn empty_dir(source: &EmptyDirVolumeSource, group: Option<u32>, path: &str, problems: &mut Problems) -> VolumeSource {
    let medium = match source.medium.as_deref() {
        None | Some("") => Medium::Disk,
        Some("Memory") => Medium::Memory,
        Some(other) => {
            problems.add(&format!("{path}.medium"), format!("\"{other}\" is neither Memory nor empty"));
            Medium::Disk
        }
    };
    let limit = source.size_limit.as_ref();
    let size = limit.and_then(|limit| checked(&format!("{path}.sizeLimit"), quantity::bytes(&limit.0), problems));
    VolumeSource::Empty { medium, size: size.filter(|s| *s > 0), group }
}

fn host_path(source: &HostPathVolumeSource, path: &str, problems: &mut Problems) -> Option<VolumeSource> {
    let host = &source.path;
    if !host.starts_with('/') || host.contains('\0') || host.split('/').any(|part| part == "..") {
        problems.add(&format!("{path}.path"), format!("\"{host}\" must be an absolute path without \"..\""));
        return None;
    }
    let kind = match source.type_.as_deref() {
        None | Some("") => HostPathKind::Any,
        Some("DirectoryOrCreate") => HostPathKind::DirectoryOrCreate,
        Some("Directory") => HostPathKind::Directory,
        Some("FileOrCreate") => HostPathKind::FileOrCreate,
        Some("File") => HostPathKind::File,
        Some("Socket") => HostPathKind::Socket,
        Some("BlockDevice") => return Some(VolumeSource::Device(PathBuf::from(host))),
        Some("CharDevice") => {
            let text = "CharDevice is not supported: the pod's kernel has no such devices of the host; remove it";
            problems.add(&format!("{path}.type"), text);
            return None;
        }
        Some(other) => {
            let text = format!(
                "\"{other}\" is none of DirectoryOrCreate, Directory, FileOrCreate, File, Socket, BlockDevice, and not \
                 empty"
            );
            problems.add(&format!("{path}.type"), text);
            return None;
        }
    };
    Some(VolumeSource::Host(HostPath { path: PathBuf::from(host), kind }))
}

fn image(source: &ImageVolumeSource, path: &str, problems: &mut Problems) -> VolumeSource {
    let reference = source.reference.clone().unwrap_or_default();
    if reference.is_empty() {
        problems.add(&format!("{path}.reference"), "an image volume needs an image");
    }
    let pull = pull_policy(source.pull_policy.as_deref(), &reference, &format!("{path}.pullPolicy"), problems);
    VolumeSource::Image(ImageSource { reference, pull })
}

/// A claim is the named volume of its name, as in podman.
fn claim(source: &PersistentVolumeClaimVolumeSource, path: &str, problems: &mut Problems) -> Option<VolumeSource> {
    let name = source.claim_name.clone();
    if !is_name(&name) {
        let text = format!("\"{name}\" is no name of a volume: use letters, digits, _ . and -, at most 64");
        problems.add(&format!("{path}.claimName"), text);
        return None;
    }
    Some(VolumeSource::Named { name, read_only: source.read_only.unwrap_or(false) })
}
