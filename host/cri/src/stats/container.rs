//! ContainerStats.

use std::path::Path;

use husk_client::{LayerUsage, Usage};

use super::convert::{cpu, io, memory, number, swap};
use super::sampled::Sample;
use crate::api::{ContainerAttributes, ContainerStats, FilesystemIdentifier, FilesystemUsage};
use crate::state::Container;

/// What a container takes, by its last sample. One that does not run takes no CPU and no memory, and only its writable
/// layer is told of, as containerd does. `images` is where the node's images and pods are.
pub(crate) fn container(container: &Container, images: &Path) -> ContainerStats {
    let attributes = ContainerAttributes {
        id: container.id.clone(),
        metadata: container.config.metadata.clone(),
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
    };
    let sample = container.sampled.last();
    of_sample(attributes, sample.as_deref(), container.phase().is_running(), images)
}

fn of_sample(
    attributes: ContainerAttributes,
    sample: Option<&Sample<Usage>>,
    is_running: bool,
    images: &Path,
) -> ContainerStats {
    let running = sample.filter(|_| is_running);
    ContainerStats {
        attributes: Some(attributes),
        cpu: running.map(cpu),
        memory: running.map(memory),
        swap: running.map(swap),
        io: running.and_then(io),
        writable_layer: sample.and_then(|sample| Some(layer(sample.at, sample.value.layer.as_ref()?, images))),
    }
}

/// The writable layer is on the pod's disk, whose blocks are on the same file system of the host as the images.
fn layer(timestamp: i64, usage: &LayerUsage, images: &Path) -> FilesystemUsage {
    FilesystemUsage {
        timestamp,
        fs_id: Some(FilesystemIdentifier { mountpoint: images.to_string_lossy().into_owned() }),
        used_bytes: number(usage.used_bytes),
        inodes_used: number(usage.inodes_used),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampled::Sampled;
    use super::*;

    fn stats(is_running: bool, usage: Option<Usage>) -> ContainerStats {
        let sampled = Sampled::default();
        if let Some(usage) = usage {
            sampled.record(usage);
        }
        of_sample(ContainerAttributes::default(), sampled.last().as_deref(), is_running, Path::new("/images"))
    }

    fn used() -> Usage {
        let layer = LayerUsage { used_bytes: 4096, inodes_used: 3, ..LayerUsage::default() };
        Usage { layer: Some(layer), ..Usage::default() }
    }

    #[test]
    fn a_running_container_is_told_of_in_full() {
        let stats = stats(true, Some(used()));
        assert!(stats.cpu.unwrap().timestamp > 0 && stats.memory.unwrap().timestamp > 0);
        assert_eq!(stats.swap.unwrap().swap_usage_bytes.unwrap().value, 0);
        let layer = stats.writable_layer.unwrap();
        assert_eq!(layer.fs_id.unwrap().mountpoint, "/images");
        assert_eq!((layer.used_bytes.unwrap().value, layer.inodes_used.unwrap().value), (4096, 3));
        assert!(layer.timestamp > 0);
    }

    #[test]
    fn one_that_has_ended_has_its_layer_only() {
        let stats = stats(false, Some(used()));
        assert_eq!((stats.cpu, stats.memory, stats.swap, stats.io), (None, None, None, None));
        assert!(stats.writable_layer.is_some());
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let unseen = stats(true, None);
        assert!(unseen.attributes.is_some() && unseen.cpu.is_none() && unseen.writable_layer.is_none());
        assert!(stats(true, Some(Usage::default())).writable_layer.is_none());
    }
}
