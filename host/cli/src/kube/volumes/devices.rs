//! `volumeDevices` of a container.

use k8s_openapi::api::core::v1::VolumeDevice;

use super::super::convert::Problems;
use crate::pods::plan::{DevicePlan, VolumePlan, VolumeSource};

pub(in super::super) fn devices(
    devices: &[VolumeDevice],
    path: &str,
    volumes: &[VolumePlan],
    problems: &mut Problems,
) -> Vec<DevicePlan> {
    let mut plans: Vec<DevicePlan> = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        let path = format!("{path}.volumeDevices[{index}]");
        if !DevicePlan::is_place(&device.device_path) {
            let text = format!("\"{}\" must be a path below /dev without \"..\"", device.device_path);
            problems.add(&format!("{path}.devicePath"), text);
        }
        if plans.iter().any(|plan| plan.container == device.device_path) {
            problems.add(&format!("{path}.devicePath"), format!("{} is given twice", device.device_path));
        }
        match volumes.iter().find(|volume| volume.name == device.name).map(|volume| &volume.source) {
            Some(VolumeSource::Device(host)) => {
                plans.push(DevicePlan { host: host.clone(), container: device.device_path.clone(), writable: true });
            }
            Some(_) => {
                let text = format!("volume {} is no block device: use hostPath with type: BlockDevice", device.name);
                problems.add(&format!("{path}.name"), text);
            }
            None => {
                let text = format!("there is no volume \"{}\" in spec.volumes", device.name);
                problems.add(&format!("{path}.name"), text);
            }
        }
    }
    plans
}
