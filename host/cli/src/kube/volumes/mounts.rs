//! `volumeMounts` of a container.

use k8s_openapi::api::core::v1::VolumeMount;

use super::super::convert::Problems;
use super::super::env::Environment;
use super::super::names::{is_mount_point, is_sub_path};
use crate::pods::plan::{
    Access, MountFlag, MountOptions, MountPlan, MountSource, Propagation, VolumePlan, VolumeSource,
};

pub(in super::super) fn mounts(
    mounts: &[VolumeMount],
    path: &str,
    volumes: &[VolumePlan],
    env: &Environment,
    problems: &mut Problems,
) -> Vec<MountPlan> {
    let mut plans: Vec<MountPlan> = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        let volume = volumes.iter().find(|v| v.name == mount.name);
        if volume.is_none() {
            problems.add(&format!("{path}.name"), format!("there is no volume \"{}\" in spec.volumes", mount.name));
        }
        if !is_mount_point(&mount.mount_path) {
            let text = format!("\"{}\" must be an absolute path below / without \"..\"", mount.mount_path);
            problems.add(&format!("{path}.mountPath"), text);
        }
        if plans.iter().any(|p| p.destination == mount.mount_path) {
            problems.add(&format!("{path}.mountPath"), format!("{} is mounted twice", mount.mount_path));
        }
        if matches!(volume, Some(VolumePlan { source: VolumeSource::Device(_), .. })) {
            let text = format!("volume {} is a block device: name it in volumeDevices", mount.name);
            problems.add(&format!("{path}.name"), text);
        }
        let mut options = options(mount, &path, problems);
        if matches!(volume, Some(VolumePlan { source: VolumeSource::Image(_), .. })) {
            // As Kubernetes mounts image volumes.
            options.flags.push(MountFlag::NoExec);
        }
        plans.push(MountPlan {
            source: MountSource::PodVolume { name: mount.name.clone() },
            destination: mount.mount_path.clone(),
            sub_path: sub_path(mount, &path, env, problems),
            options,
        });
    }
    plans
}

fn options(mount: &VolumeMount, path: &str, problems: &mut Problems) -> MountOptions {
    let read_only = mount.read_only.unwrap_or(false);
    let propagation = match mount.mount_propagation.as_deref() {
        None | Some("None") => Propagation::Private,
        Some("HostToContainer") => Propagation::Slave,
        Some("Bidirectional") => {
            let text = "Bidirectional is not supported: a mount of the pod's kernel cannot appear on the host; use \
                        HostToContainer or None";
            problems.add(&format!("{path}.mountPropagation"), text);
            Propagation::Private
        }
        Some(other) => {
            problems.add(&format!("{path}.mountPropagation"), format!("\"{other}\" is none of None, HostToContainer"));
            Propagation::Private
        }
    };
    let plain = if read_only { Access::ReadOnly } else { Access::ReadWrite };
    let path = format!("{path}.recursiveReadOnly");
    let access = match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => plain,
        Some(wanted @ ("Enabled" | "IfPossible")) => {
            if !read_only {
                problems.add(&path, format!("{wanted} needs readOnly: true"));
            }
            if propagation == Propagation::Slave {
                problems.add(&path, format!("{wanted} needs mountPropagation None"));
            }
            Access::RecursiveReadOnly
        }
        Some(other) => {
            problems.add(&path, format!("\"{other}\" is none of Disabled, IfPossible, Enabled"));
            plain
        }
    };
    MountOptions { propagation, ..MountOptions::with_access(access) }
}

/// subPath, or subPathExpr with the container's variables in it.
fn sub_path(mount: &VolumeMount, path: &str, env: &Environment, problems: &mut Problems) -> Option<String> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (field, written, sub) = match (given(&mount.sub_path), given(&mount.sub_path_expr)) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            problems.add(path, "has both subPath and subPathExpr");
            return None;
        }
        (Some(sub), None) => ("subPath", sub.clone(), sub),
        (None, Some(expression)) => {
            let expanded = env.expand(&expression);
            if let Some(name) = expanded.unset {
                let text = format!("the container has no variable {name}: set it in env");
                problems.add(&format!("{path}.subPathExpr"), text);
            }
            // It may hold a secret: what is shown is what was written.
            ("subPathExpr", expression, expanded.text)
        }
    };
    if sub.is_empty() || !is_sub_path(&sub) {
        problems.add(&format!("{path}.{field}"), format!("\"{written}\" must be a relative path without \"..\""));
    }
    Some(sub)
}
