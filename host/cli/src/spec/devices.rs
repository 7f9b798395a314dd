//! Block devices of the host: a node, and a rule that allows it.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::SpecError;
use crate::pods::plan::DevicePlan;

/// # Errors
///
/// When there is no such device, or it is of another kind.
pub(super) fn all(
    container: &str,
    wanted: &[DevicePlan],
) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>), SpecError> {
    wanted.iter().map(|plan| device(container, plan)).collect()
}

fn device(container: &str, plan: &DevicePlan) -> Result<(LinuxDevice, LinuxDeviceCgroup), SpecError> {
    let refused = |why: String| SpecError::Device {
        container: container.to_owned(),
        device: plan.host.display().to_string(),
        why,
    };
    let metadata = std::fs::metadata(&plan.host).map_err(|error| refused(error.to_string()))?;
    if !metadata.file_type().is_block_device() {
        return Err(refused("it is no block device, and no other devices can be given to a VM".to_owned()));
    }
    let number = metadata.rdev();
    let (major, minor) = (rustix::fs::major(number).into(), rustix::fs::minor(number).into());
    let mut node = LinuxDevice::default();
    node.set_path(PathBuf::from(&plan.container))
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
        .set_access(Some(if plan.writable { "rwm" } else { "rm" }.to_owned()));
    Ok((node, rule))
}
