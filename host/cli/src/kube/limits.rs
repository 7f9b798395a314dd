//! `resources` of a container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::convert::Problems;
use super::quantity;
use crate::pods::plan::{ContainerPlan, Limits};
use crate::spec::resources;

pub(super) fn limits(wanted: Option<&ResourceRequirements>, path: &str, problems: &mut Problems) -> Limits {
    let Some(wanted) = wanted else { return Limits::default() };
    let mut read = |kind: &str, list: Option<&BTreeMap<String, Quantity>>, name: &str| {
        let text = &list?.get(name)?.0;
        let path = format!("{path}.resources.{kind}.{name}");
        let parsed = if name == "cpu" { quantity::milli_cpus(text) } else { quantity::bytes(text) };
        checked(&path, parsed, problems).filter(|value| *value > 0)
    };
    let (limits, requests) = (wanted.limits.as_ref(), wanted.requests.as_ref());
    let (memory, cpu_milli) = (read("limits", limits, "memory"), read("limits", limits, "cpu"));
    let (memory_request, cpu_request) = (read("requests", requests, "memory"), read("requests", requests, "cpu"));
    let exceeds = |request: Option<u64>, limit: Option<u64>| request.zip(limit).is_some_and(|(r, l)| r > l);
    if exceeds(memory_request, memory) {
        problems.add(&format!("{path}.resources.requests.memory"), "is more than limits.memory");
    }
    if exceeds(cpu_request, cpu_milli) {
        problems.add(&format!("{path}.resources.requests.cpu"), "is more than limits.cpu");
    }
    if memory.is_some_and(|bytes| bytes < resources::MIN_MEMORY) {
        let text = format!("is less than {} MiB, too little to start a container", resources::MIN_MEMORY >> 20);
        problems.add(&format!("{path}.resources.limits.memory"), text);
    }
    // Kubernetes takes a limit for the request too when there is no request.
    let cpu_shares = cpu_request.or(cpu_milli).map(resources::shares);
    Limits { memory, cpu_milli, cpu_shares, pids: None }
}

/// `spec.resources`: the pod as a whole. No container may be allowed more.
pub(super) fn pod(
    wanted: Option<&ResourceRequirements>,
    containers: &[ContainerPlan],
    problems: &mut Problems,
) -> Limits {
    let limits = limits(wanted, "spec", problems);
    let exceeds = |own: Option<u64>, pod: Option<u64>| own.zip(pod).is_some_and(|(own, pod)| own > pod);
    for container in containers {
        if exceeds(container.limits.memory, limits.memory) {
            let text = format!("is less than the limit of the container {}", container.name);
            problems.add("spec.resources.limits.memory", text);
        }
        if exceeds(container.limits.cpu_milli, limits.cpu_milli) {
            let text = format!("is less than the limit of the container {}", container.name);
            problems.add("spec.resources.limits.cpu", text);
        }
    }
    limits
}

/// The value, or `None` and a problem more.
pub(super) fn checked<T>(path: &str, parsed: Result<T, quantity::QuantityError>, problems: &mut Problems) -> Option<T> {
    parsed.map_err(|error| problems.add(path, error)).ok()
}
