//! A pod's own metrics: what its VM takes of the host, and what has passed its interfaces.

use husk_client::{PodStats, Usage};

use super::container::{ALL_CPUS, faults};
use super::family::{Object, Values, epoch_seconds, seconds};
use super::names::*;
use crate::api::Metric;
use crate::state::Sandbox;
use crate::stats::convert::{distinct, working_set};
use crate::stats::sampled::Sample;

/// A pod's metrics; none before it was looked at.
pub(super) fn metrics(sandbox: &Sandbox) -> Vec<Metric> {
    let pod = sandbox.metadata();
    let object = Object { id: sandbox.id.clone(), namespace: pod.namespace, pod: pod.name, ..Object::default() };
    let mut values = Values::new(object);
    if let Some(sample) = sandbox.samples.host.last() {
        let created_at = sandbox.record.with(|record| record.created_at);
        host(&mut values, &sample, created_at);
    }
    if let Some(sample) = sandbox.samples.guest.last() {
        network(&mut values, &sample);
    }
    values.into_metrics()
}

fn host(values: &mut Values, sample: &Sample<PodStats>, created_at: i64) {
    let stats = &sample.value;
    values.at(sample.at);
    values.add(&LAST_SEEN, [], epoch_seconds(sample.at));
    values.add(&START_TIME, [], epoch_seconds(created_at));
    if stats.cgroup.is_empty() {
        // Nobody counts but procfs.
        for family in [&MEMORY_USAGE, &MEMORY_WORKING_SET, &MEMORY_RSS] {
            values.add(family, [], stats.vmm_resident);
        }
        return;
    }
    values.add(&CPU_USAGE, [ALL_CPUS], seconds(stats.cpu_us));
    values.add(&CPU_USER, [], seconds(stats.cpu_user_us));
    values.add(&CPU_SYSTEM, [], seconds(stats.cpu_system_us));
    values.add(&CPU_THROTTLED, [], seconds(stats.cpu_throttled_us));
    values.add(&MEMORY_USAGE, [], stats.memory);
    values.add(&MEMORY_WORKING_SET, [], working_set(stats.memory, stats.memory_inactive_file));
    values.add(&MEMORY_RSS, [], stats.memory_anon);
    // Kernels before 5.19 keep none.
    if stats.memory_peak > 0 {
        values.add(&MEMORY_MAX_USAGE, [], stats.memory_peak);
    }
    faults(values, stats.page_faults, stats.major_page_faults);
    values.add(&SPEC_MEMORY_LIMIT, [], stats.memory_limit.unwrap_or(0));
}

fn network(values: &mut Values, sample: &Sample<Usage>) {
    values.at(sample.at);
    for interface in distinct(&sample.value.network) {
        let name = [interface.name.as_str()];
        values.add(&NETWORK_RX_BYTES, name, interface.received_bytes);
        values.add(&NETWORK_RX_PACKETS, name, interface.received_packets);
        values.add(&NETWORK_RX_ERRORS, name, interface.received_errors);
        values.add(&NETWORK_RX_DROPPED, name, interface.received_dropped);
        values.add(&NETWORK_TX_BYTES, name, interface.sent_bytes);
        values.add(&NETWORK_TX_PACKETS, name, interface.sent_packets);
        values.add(&NETWORK_TX_ERRORS, name, interface.sent_errors);
        values.add(&NETWORK_TX_DROPPED, name, interface.sent_dropped);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use husk_client::InterfaceUsage;

    use super::super::names::descriptors;
    use super::*;
    use crate::stats::Sampled;

    fn metrics(stats: PodStats, interfaces: &[&str]) -> Vec<Metric> {
        let (of_host, of_guest) = (Sampled::default(), Sampled::default());
        of_host.record(stats);
        let interface = |name: &&str| InterfaceUsage { name: (*name).to_owned(), ..InterfaceUsage::default() };
        of_guest.record(Usage { network: interfaces.iter().map(interface).collect(), ..Usage::default() });
        let mut values = Values::new(Object { id: "pod".into(), ..Object::default() });
        host(&mut values, &of_host.last().unwrap(), 1);
        network(&mut values, &of_guest.last().unwrap());
        values.into_metrics()
    }

    fn in_cgroup() -> PodStats {
        PodStats { cgroup: "husk/a".into(), memory_peak: 1, ..PodStats::default() }
    }

    #[test]
    fn every_value_has_the_labels_of_its_descriptor_and_is_alone_with_them() {
        let keys: HashMap<String, usize> =
            descriptors().into_iter().map(|one| (one.name, one.label_keys.len())).collect();
        let all = metrics(in_cgroup(), &["eth0", "eth0", "net1"]);
        for metric in &all {
            assert_eq!(Some(&metric.label_values.len()), keys.get(&metric.name), "{metric:?}");
        }
        let distinct: HashSet<_> = all.iter().map(|metric| (&metric.name, &metric.label_values)).collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn a_pod_without_a_cgroup_has_no_cpu_time() {
        let told = |stats| metrics(stats, &[]).iter().any(|metric| metric.name == "container_cpu_usage_seconds_total");
        assert!(told(in_cgroup()));
        assert!(!told(PodStats::default()));
    }
}
