//! How large a pod is, by the limits of its containers, and changing that while it runs.
//!
//! A pod that was given a size as a whole keeps it. Another has what its containers' limits add up to; a container that
//! joins it later adds its own limits, and takes them along when it is removed.

use anyhow::Context as _;
use husk_client::Shim;
use oci_spec::runtime::LinuxResources;

use super::directory::PodDir;
use super::plan::Kind;
use super::record::PodRecord;
use crate::engine::Engine;
use crate::spec::resources;

/// What all containers of a pod have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PodSize {
    /// Bytes.
    pub(crate) memory: u64,
    /// Thousandths of a CPU; none: no limit.
    pub(crate) cpu_milli: Option<u64>,
}

/// One container's part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Need {
    kind: Kind,
    joined: bool,
    memory: Option<u64>,
    cpu_milli: Option<u64>,
}

impl Need {
    fn of(kind: Kind, joined: bool, limits: &LinuxResources) -> Self {
        let memory = limits.memory().and_then(|memory| memory.limit()).and_then(|bytes| u64::try_from(bytes).ok());
        let cpu = limits.cpu().as_ref();
        let quota = cpu.and_then(|cpu| cpu.quota()).and_then(|quota| u64::try_from(quota).ok());
        let period = cpu.and_then(|cpu| cpu.period()).unwrap_or(resources::CPU_PERIOD_US).max(1);
        Self {
            kind,
            joined,
            memory: memory.filter(|bytes| *bytes > 0),
            cpu_milli: quota.filter(|us| *us > 0).map(|us| us.saturating_mul(1000).div_ceil(period)),
        }
    }
}

impl PodSize {
    /// The size that a pod should have by its record and its containers' specs, one of which is, or shall be, `changed`.
    pub(crate) fn of(dir: &PodDir, pod: &PodRecord, changed: Option<(&str, &LinuxResources)>) -> anyhow::Result<Self> {
        let mut needs = Vec::with_capacity(pod.containers.len());
        for container in &pod.containers {
            let limits = match changed {
                Some((id, limits)) if id == container.id => limits.clone(),
                _ => limits(dir, &container.id)?,
            };
            needs.push(Need::of(container.kind, container.joined, &limits));
        }
        Ok(Self::from(pod.own_size.memory, pod.own_size.cpu_milli, &needs))
    }

    fn from(own_memory: Option<u64>, own_cpu: Option<u64>, needs: &[Need]) -> Self {
        let first = || needs.iter().filter(|need| !need.joined);
        let joined = |part: fn(&Need) -> Option<u64>| {
            needs.iter().filter(|need| need.joined).filter_map(part).fold(0, u64::saturating_add)
        };
        let memory = own_memory.unwrap_or_else(|| {
            let first = first().map(|need| (need.kind, need.memory.unwrap_or(resources::UNLIMITED_MEMORY)));
            resources::effective(first).saturating_add(joined(|need| need.memory))
        });
        let limited = first().next().is_some() && first().all(|need| need.cpu_milli.is_some());
        let cpu_milli = own_cpu.or_else(|| {
            let first = || first().map(|need| (need.kind, need.cpu_milli.unwrap_or_default()));
            limited.then(|| resources::effective(first()).saturating_add(joined(|need| need.cpu_milli)))
        });
        Self { memory, cpu_milli }
    }

    /// What holds both.
    pub(crate) fn with(self, other: Self) -> Self {
        let cpu_milli = self.cpu_milli.zip(other.cpu_milli).map(|(one, another)| one.max(another));
        Self { memory: self.memory.max(other.memory), cpu_milli }
    }

    /// Has the shim give the pod this size, where it differs from what the pod had `before`, if that is known. Puts what
    /// came of it on record.
    pub(crate) async fn apply(self, dir: &PodDir, shim: &Shim, before: Option<Self>) -> anyhow::Result<()> {
        if before == Some(self) {
            return Ok(());
        }
        let quota = self.cpu_milli.map_or(-1, resources::quota_us);
        let memory = before.is_none_or(|before| before.memory != self.memory).then_some(self.memory);
        let cpu = before.is_none_or(|before| before.cpu_milli != self.cpu_milli);
        let cpu = cpu.then_some((quota, resources::CPU_PERIOD_US));
        let (memory_mib, vcpus) = shim.resize_pod(memory, cpu).await?;
        let pod = dir.update(|record| {
            if let Some(boot) = &mut record.boot {
                (boot.memory_mib, boot.vcpus) = (memory_mib, vcpus);
            }
        })?;
        tracing::debug!(pod = pod.name, memory_mib, vcpus, "resized");
        Ok(())
    }
}

/// `linux.resources` of a container's spec.
pub(crate) fn limits(dir: &PodDir, id: &str) -> anyhow::Result<LinuxResources> {
    let spec = dir.spec(id)?;
    Ok(spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default())
}

/// Gives a running pod the size that its containers have now. Nothing happens when it does not run.
pub(crate) async fn follow(engine: &Engine, pod: &str) -> anyhow::Result<()> {
    let dir = engine.pods.open(pod);
    let record = dir.record()?;
    let Some(shim) = engine.connect(pod).await? else { return Ok(()) };
    PodSize::of(&dir, &record, None)?.apply(&dir, &shim, None).await.with_context(|| format!("pod {}", record.name))
}

/// The same after a container has left it. That one is gone in any case, so a pod that keeps its size is only noted.
pub(crate) async fn follow_removal(engine: &Engine, pod: &str) {
    if let Err(error) = follow(engine, pod).await {
        tracing::warn!("the pod keeps its size: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn app(memory: Option<u64>, cpu_milli: Option<u64>) -> Need {
        Need { kind: Kind::App, joined: false, memory, cpu_milli }
    }

    fn joined(memory: Option<u64>, cpu_milli: Option<u64>) -> Need {
        Need { joined: true, ..app(memory, cpu_milli) }
    }

    fn size(memory: u64, cpu_milli: Option<u64>) -> PodSize {
        PodSize { memory, cpu_milli }
    }

    #[test]
    fn a_pod_is_as_large_as_its_containers_together() {
        let needs = [app(Some(100), Some(500)), app(Some(50), Some(1500))];
        assert_eq!(PodSize::from(None, None, &needs), size(150, Some(2000)));
        let init = Need { kind: Kind::Init, ..app(Some(400), Some(100)) };
        assert_eq!(PodSize::from(None, None, &[init, needs[0]]), size(400, Some(500)));
        assert_eq!(PodSize::from(None, None, &[app(None, None), needs[0]]), size((512 << 20) + 100, None));
    }

    #[test]
    fn who_joins_brings_what_it_needs_if_it_says_so() {
        let first = app(Some(100), Some(500));
        assert_eq!(PodSize::from(None, None, &[first, joined(Some(30), Some(250))]), size(130, Some(750)));
        assert_eq!(PodSize::from(None, None, &[first, joined(None, None)]), size(100, Some(500)));
        assert_eq!(
            PodSize::from(None, None, &[app(None, None), joined(Some(30), Some(250))]),
            size((512 << 20) + 30, None)
        );
    }

    #[test]
    fn a_size_of_its_own_stays() {
        let needs = [app(Some(100), Some(500)), joined(Some(30), Some(250))];
        assert_eq!(PodSize::from(Some(70), None, &needs), size(70, Some(750)));
        assert_eq!(PodSize::from(None, Some(9), &needs), size(130, Some(9)));
    }

    #[test]
    fn of_two_sizes_the_larger_parts_hold_both() {
        assert_eq!(size(5, Some(1)).with(size(3, Some(2))), size(5, Some(2)));
        assert_eq!(size(3, None).with(size(5, Some(2))), size(5, None));
    }

    #[test]
    fn limits_are_those_of_the_spec() {
        let need = |value| Need::of(Kind::App, false, &serde_json::from_value(value).unwrap());
        assert_eq!(need(json!({})), app(None, None));
        assert_eq!(need(json!({"memory": {"limit": -1}, "cpu": {"quota": -1}})), app(None, None));
        let limited = json!({"memory": {"limit": 4096}, "cpu": {"quota": 25_000, "period": 50_000}});
        assert_eq!(need(limited), app(Some(4096), Some(500)));
    }
}
