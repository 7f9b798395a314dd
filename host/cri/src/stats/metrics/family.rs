//! Metrics of one name, and a list of values that cannot have other labels than their names say.

use crate::api::{Metric, MetricDescriptor, MetricType, UInt64Value};

/// What every value says of whom it is about, as cAdvisor does under kubelet. Values of a pod have no container and no
/// image.
const OBJECT: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// Metrics of one name, with `N` labels beside those of [`OBJECT`].
#[derive(Debug)]
pub(super) struct Family<const N: usize> {
    pub(super) name: &'static str,
    help: &'static str,
    kind: MetricType,
    labels: [&'static str; N],
}

pub(super) const fn counter<const N: usize>(
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
) -> Family<N> {
    Family { name, help, kind: MetricType::Counter, labels }
}

pub(super) const fn gauge<const N: usize>(
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
) -> Family<N> {
    Family { name, help, kind: MetricType::Gauge, labels }
}

impl<const N: usize> Family<N> {
    pub(super) fn descriptor(&self) -> MetricDescriptor {
        MetricDescriptor {
            name: self.name.to_owned(),
            help: self.help.to_owned(),
            label_keys: OBJECT.iter().chain(&self.labels).map(|label| (*label).to_owned()).collect(),
        }
    }
}

/// Whom values are about.
#[derive(Clone, Debug, Default)]
pub(super) struct Object {
    /// Name in the pod's spec; empty for the pod itself.
    pub(super) container: String,
    /// Of the container, or of the pod's sandbox. It stands for the cgroup's path too, which only the guest knows.
    pub(super) id: String,
    pub(super) image: String,
    pub(super) namespace: String,
    pub(super) pod: String,
}

/// Values of one object at one time.
#[derive(Debug)]
pub(super) struct Values {
    object: [String; 6],
    at: i64,
    metrics: Vec<Metric>,
}

impl Values {
    pub(super) fn new(object: Object) -> Self {
        let Object { container, id, image, namespace, pod } = object;
        Self { object: [container, id.clone(), image, id, namespace, pod], at: 0, metrics: Vec::new() }
    }

    /// What is added from now on was sampled at `at`, nanoseconds since the epoch.
    pub(super) fn at(&mut self, at: i64) {
        self.at = at;
    }

    pub(super) fn add<const N: usize>(&mut self, family: &Family<N>, labels: [&str; N], value: u64) {
        self.metrics.push(Metric {
            name: family.name.to_owned(),
            timestamp: self.at,
            metric_type: family.kind.into(),
            label_values: self.object.iter().cloned().chain(labels.map(str::to_owned)).collect(),
            value: Some(UInt64Value { value }),
        });
    }

    pub(super) fn into_metrics(self) -> Vec<Metric> {
        self.metrics
    }
}

/// Whole seconds of microseconds.
pub(super) fn seconds(us: u64) -> u64 {
    us / 1_000_000
}

/// Whole seconds since the epoch of nanoseconds.
pub(super) fn epoch_seconds(ns: i64) -> u64 {
    u64::try_from(ns / 1_000_000_000).unwrap_or_default()
}
