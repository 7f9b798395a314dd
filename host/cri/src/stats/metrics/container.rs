//! A container's metrics, by its guest's count and as it was asked for.

use husk_client::{DeviceIo, LayerUsage, Pressure, Usage};

use super::family::{Family, Object, Values, epoch_seconds, seconds};
use super::names::*;
use crate::api::{ContainerMetrics, ImageSpec, LinuxContainerResources};
use crate::state::{Container, ContainerPhase};
use crate::stats::convert::working_set;
use crate::stats::sampled::Sample;

/// cAdvisor's value for all CPUs together.
pub(super) const ALL_CPUS: &str = "total";
/// A limit beyond this is none: kernels round it down from the largest number.
const UNLIMITED: u64 = 1 << 62;

/// A running container's metrics; `None` before it was looked at.
pub(super) fn metrics(container: &Container) -> Option<ContainerMetrics> {
    let ContainerPhase::Running { started_at } = container.phase() else { return None };
    let sample = container.sampled.last()?;
    let pod = container.sandbox.metadata();
    let object = Object {
        container: container.metadata().name,
        id: container.id.clone(),
        image: container.config.image.as_ref().map(image).unwrap_or_default(),
        namespace: pod.namespace,
        pod: pod.name,
    };
    let mut values = Values::new(object);
    of_sample(&mut values, &sample, started_at, &container.resources());
    Some(ContainerMetrics { container_id: container.id.clone(), metrics: values.into_metrics() })
}

/// The image as its user calls it: kubelet asks for it by its id.
fn image(image: &ImageSpec) -> String {
    let user = &image.user_specified_image;
    if user.is_empty() { image.image.clone() } else { user.clone() }
}

fn of_sample(values: &mut Values, sample: &Sample<Usage>, started_at: i64, resources: &LinuxContainerResources) {
    let usage = &sample.value;
    values.at(sample.at);
    values.add(&LAST_SEEN, [], epoch_seconds(sample.at));
    values.add(&START_TIME, [], epoch_seconds(started_at));
    cpu(values, usage);
    memory(values, usage);
    processes(values, usage);
    if let Some(layer) = &usage.layer {
        disk(values, layer);
    }
    for (at, device) in usage.io.iter().enumerate() {
        // A guest may name one twice.
        if !usage.io.iter().take(at).any(|earlier| label(earlier) == label(device)) {
            io(values, device);
        }
    }
    let pressures = [
        (&usage.cpu_pressure, &PRESSURE_CPU_WAITING, &PRESSURE_CPU_STALLED),
        (&usage.memory_pressure, &PRESSURE_MEMORY_WAITING, &PRESSURE_MEMORY_STALLED),
        (&usage.io_pressure, &PRESSURE_IO_WAITING, &PRESSURE_IO_STALLED),
    ];
    for (pressure, waiting, stalled) in pressures {
        if let Some(pressure) = pressure {
            waited(values, pressure, waiting, stalled);
        }
    }
    spec(values, resources);
}

fn cpu(values: &mut Values, usage: &Usage) {
    values.add(&CPU_USAGE, [ALL_CPUS], seconds(usage.cpu_us));
    values.add(&CPU_USER, [], seconds(usage.cpu_user_us));
    values.add(&CPU_SYSTEM, [], seconds(usage.cpu_system_us));
    values.add(&CPU_PERIODS, [], usage.cpu_periods);
    values.add(&CPU_THROTTLED_PERIODS, [], usage.cpu_throttled_periods);
    values.add(&CPU_THROTTLED, [], seconds(usage.cpu_throttled_us));
}

fn memory(values: &mut Values, usage: &Usage) {
    values.add(&MEMORY_USAGE, [], usage.memory);
    values.add(&MEMORY_WORKING_SET, [], working_set(usage.memory, usage.memory_inactive_file));
    values.add(&MEMORY_MAX_USAGE, [], usage.memory_peak);
    values.add(&MEMORY_RSS, [], usage.memory_anon);
    values.add(&MEMORY_CACHE, [], usage.memory_file);
    values.add(&MEMORY_MAPPED_FILE, [], usage.memory_mapped_file);
    values.add(&MEMORY_KERNEL, [], usage.memory_kernel);
    values.add(&MEMORY_SWAP, [], usage.memory_swap);
    values.add(&MEMORY_FAILCNT, [], usage.memory_limit_hits);
    faults(values, usage.page_faults, usage.major_page_faults);
    values.add(&OOM_EVENTS, [], usage.oom_kills);
}

/// cgroup v2 counts a group with all below it, so that both scopes have the same number, as with cAdvisor.
pub(super) fn faults(values: &mut Values, all: u64, major: u64) {
    for scope in ["container", "hierarchy"] {
        values.add(&MEMORY_FAILURES, ["pgfault", scope], all);
        values.add(&MEMORY_FAILURES, ["pgmajfault", scope], major);
    }
}

fn processes(values: &mut Values, usage: &Usage) {
    values.add(&PROCESSES, [], usage.processes);
    values.add(&THREADS, [], usage.threads);
    values.add(&THREADS_MAX, [], usage.threads_limit.unwrap_or(0));
    if let Some(descriptors) = usage.descriptors {
        values.add(&FILE_DESCRIPTORS, [], descriptors);
    }
    if let Some(sockets) = usage.sockets {
        values.add(&SOCKETS, [], sockets);
    }
}

fn disk(values: &mut Values, layer: &LayerUsage) {
    let device = format!("/dev/{}", layer.device);
    values.add(&FS_USAGE, [&device], layer.used_bytes);
    values.add(&FS_LIMIT, [&device], layer.disk_bytes);
    values.add(&FS_INODES, [&device], layer.disk_inodes);
    values.add(&FS_INODES_FREE, [&device], layer.disk_inodes_free);
}

fn label(io: &DeviceIo) -> String {
    if io.device.is_empty() { format!("{}:{}", io.major, io.minor) } else { format!("/dev/{}", io.device) }
}

fn io(values: &mut Values, io: &DeviceIo) {
    let (device, major, minor) = (label(io), io.major.to_string(), io.minor.to_string());
    values.add(&FS_READS, [&device], io.read_operations);
    values.add(&FS_READ_BYTES, [&device], io.read_bytes);
    values.add(&FS_WRITES, [&device], io.write_operations);
    values.add(&FS_WRITE_BYTES, [&device], io.write_bytes);
    values.add(&BLKIO_USAGE, [&device, &major, &minor, "Read"], io.read_bytes);
    values.add(&BLKIO_USAGE, [&device, &major, &minor, "Write"], io.write_bytes);
}

fn waited(values: &mut Values, pressure: &Pressure, waiting: &Family<0>, stalled: &Family<0>) {
    values.add(waiting, [], seconds(pressure.some.total_us));
    values.add(stalled, [], seconds(pressure.full.total_us));
}

/// What was asked for: kubelet changes it with UpdateContainerResources. CPU numbers that were not asked for are not told.
fn spec(values: &mut Values, resources: &LinuxContainerResources) {
    let cpu = [
        (&SPEC_CPU_PERIOD, resources.cpu_period),
        (&SPEC_CPU_QUOTA, resources.cpu_quota),
        (&SPEC_CPU_SHARES, resources.cpu_shares),
    ];
    for (family, number) in cpu {
        if let Some(number) = u64::try_from(number).ok().filter(|number| *number > 0) {
            values.add(family, [], number);
        }
    }
    let memory = |number: Option<u64>| number.filter(|number| *number < UNLIMITED).unwrap_or(0);
    let limit = |number: i64| memory(u64::try_from(number).ok());
    values.add(&SPEC_MEMORY_LIMIT, [], limit(resources.memory_limit_in_bytes));
    values.add(&SPEC_MEMORY_SWAP_LIMIT, [], limit(resources.memory_swap_limit_in_bytes));
    let reserved = resources.unified.get("memory.min").and_then(|number| number.parse().ok());
    values.add(&SPEC_MEMORY_RESERVATION, [], memory(reserved));
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::super::names::descriptors;
    use super::*;
    use crate::api::Metric;
    use crate::stats::Sampled;

    fn metrics(usage: Usage, resources: &LinuxContainerResources) -> Vec<Metric> {
        let sampled = Sampled::default();
        sampled.record(usage);
        let mut values = Values::new(Object { id: "1".into(), ..Object::default() });
        of_sample(&mut values, &sampled.last().unwrap(), 5_000_000_000, resources);
        values.into_metrics()
    }

    fn io(major: u32, device: &str) -> DeviceIo {
        DeviceIo { major, device: device.to_owned(), ..DeviceIo::default() }
    }

    fn everything() -> Usage {
        Usage {
            cpu_pressure: Some(Pressure::default()),
            memory_pressure: Some(Pressure::default()),
            io_pressure: Some(Pressure::default()),
            io: vec![io(254, "vda"), io(254, "vda"), io(7, ""), io(7, "")],
            descriptors: Some(3),
            sockets: Some(1),
            layer: Some(LayerUsage { device: "vda".to_owned(), ..LayerUsage::default() }),
            ..Usage::default()
        }
    }

    fn limited() -> LinuxContainerResources {
        LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 20_000,
            cpu_shares: 1024,
            memory_limit_in_bytes: 64 << 20,
            memory_swap_limit_in_bytes: i64::MAX,
            unified: HashMap::from([("memory.min".to_owned(), "4096".to_owned())]),
            ..LinuxContainerResources::default()
        }
    }

    #[test]
    fn every_value_has_the_labels_of_its_descriptor() {
        let keys: HashMap<String, usize> =
            descriptors().into_iter().map(|one| (one.name, one.label_keys.len())).collect();
        for metric in metrics(everything(), &limited()) {
            assert_eq!(Some(&metric.label_values.len()), keys.get(&metric.name), "{metric:?}");
            assert!(metric.timestamp > 0 && metric.value.is_some(), "{metric:?}");
        }
    }

    #[test]
    fn every_descriptor_but_the_networks_has_a_value() {
        let told: HashSet<String> = metrics(everything(), &limited()).into_iter().map(|metric| metric.name).collect();
        let untold: Vec<String> =
            descriptors().into_iter().map(|one| one.name).filter(|name| !told.contains(name)).collect();
        assert!(untold.iter().all(|name| name.starts_with("container_network_")), "{untold:?}");
    }

    #[test]
    fn no_name_comes_twice_with_the_same_labels() {
        let all = metrics(everything(), &limited());
        let distinct: HashSet<_> = all.iter().map(|metric| (&metric.name, &metric.label_values)).collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let all = metrics(Usage::default(), &LinuxContainerResources::default());
        let told = |name: &str| all.iter().any(|metric| metric.name == name);
        for name in [
            "container_file_descriptors",
            "container_fs_usage_bytes",
            "container_pressure_io_waiting_seconds_total",
            "container_spec_cpu_quota",
        ] {
            assert!(!told(name), "{name}");
        }
        assert!(told("container_memory_usage_bytes"));
    }

    #[test]
    fn limits_beyond_all_memory_are_none() {
        let value = |name: &str| {
            let found = metrics(Usage::default(), &limited()).into_iter().find(|metric| metric.name == name);
            found.unwrap().value.unwrap().value
        };
        assert_eq!(value("container_spec_memory_limit_bytes"), 64 << 20);
        assert_eq!(value("container_spec_memory_swap_limit_bytes"), 0);
        assert_eq!(value("container_spec_memory_reservation_limit_bytes"), 4096);
        assert_eq!(value("container_start_time_seconds"), 5);
    }
}
