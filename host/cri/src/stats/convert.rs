//! The host's and the guest's numbers in CRI's words.

use husk_client::{InterfaceUsage, PodStats, Pressure, PressureShare, Usage};

use super::sampled::Sample;
use crate::api::{
    CpuUsage, IoUsage, MemoryUsage, NetworkInterfaceUsage, NetworkUsage, PsiData, PsiStats, SwapUsage, UInt64Value,
};

/// The interface that a pod's addresses are on.
const DEFAULT_INTERFACE: &str = "eth0";

pub(super) fn number(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

/// Microseconds as nanoseconds.
fn ns(us: u64) -> u64 {
    us.saturating_mul(1000)
}

/// The memory that could not be given back at once, as kubelet counts it.
pub(super) fn working_set(usage: u64, inactive_file: u64) -> u64 {
    usage.saturating_sub(inactive_file)
}

pub(super) fn cpu(sample: &Sample<Usage>) -> CpuUsage {
    CpuUsage {
        timestamp: sample.at,
        usage_core_nano_seconds: number(ns(sample.value.cpu_us)),
        usage_nano_cores: sample.nano_cores.and_then(number),
        psi: sample.value.cpu_pressure.as_ref().map(pressure),
    }
}

pub(super) fn memory(sample: &Sample<Usage>) -> MemoryUsage {
    let usage = &sample.value;
    let working_set = working_set(usage.memory, usage.memory_inactive_file);
    MemoryUsage {
        timestamp: sample.at,
        working_set_bytes: number(working_set),
        available_bytes: usage.memory_limit.and_then(|limit| number(limit.saturating_sub(working_set))),
        usage_bytes: number(usage.memory),
        rss_bytes: number(usage.memory_anon),
        page_faults: number(usage.page_faults),
        major_page_faults: number(usage.major_page_faults),
        psi: usage.memory_pressure.as_ref().map(pressure),
    }
}

/// A guest has no swap.
pub(super) fn swap(sample: &Sample<Usage>) -> SwapUsage {
    SwapUsage { timestamp: sample.at, swap_available_bytes: number(0), swap_usage_bytes: number(0) }
}

pub(super) fn io(sample: &Sample<Usage>) -> Option<IoUsage> {
    let psi = sample.value.io_pressure.as_ref().map(pressure)?;
    Some(IoUsage { timestamp: sample.at, psi: Some(psi) })
}

fn pressure(pressure: &Pressure) -> PsiStats {
    PsiStats { full: Some(psi(pressure.full)), some: Some(psi(pressure.some)) }
}

fn psi(share: PressureShare) -> PsiData {
    // No share is more than the whole.
    let percent = |hundredths: u32| f64::from(hundredths.min(10_000)) / 100.0;
    PsiData {
        total: ns(share.total_us),
        avg10: percent(share.average_10),
        avg60: percent(share.average_60),
        avg300: percent(share.average_300),
    }
}

/// A pod's CPU time; none when the host does not count it, which takes a cgroup.
pub(super) fn pod_cpu(sample: &Sample<PodStats>) -> Option<CpuUsage> {
    (!sample.value.cgroup.is_empty()).then(|| CpuUsage {
        timestamp: sample.at,
        usage_core_nano_seconds: number(ns(sample.value.cpu_us)),
        usage_nano_cores: sample.nano_cores.and_then(number),
        psi: None,
    })
}

/// A pod's memory: its cgroup's, or without one what is resident of its VMM.
pub(super) fn pod_memory(sample: &Sample<PodStats>) -> MemoryUsage {
    let stats = &sample.value;
    if stats.cgroup.is_empty() {
        let resident = number(stats.vmm_resident);
        return MemoryUsage {
            timestamp: sample.at,
            working_set_bytes: resident,
            usage_bytes: resident,
            rss_bytes: resident,
            ..MemoryUsage::default()
        };
    }
    let working_set = working_set(stats.memory, stats.memory_inactive_file);
    MemoryUsage {
        timestamp: sample.at,
        working_set_bytes: number(working_set),
        available_bytes: stats.memory_limit.and_then(|limit| number(limit.saturating_sub(working_set))),
        usage_bytes: number(stats.memory),
        rss_bytes: number(stats.memory_anon),
        page_faults: number(stats.page_faults),
        major_page_faults: number(stats.major_page_faults),
        psi: None,
    }
}

pub(super) fn network(sample: &Sample<Usage>) -> NetworkUsage {
    let (default, others): (Vec<_>, Vec<_>) =
        distinct(&sample.value.network).partition(|interface| interface.name == DEFAULT_INTERFACE);
    NetworkUsage {
        timestamp: sample.at,
        default_interface: default.into_iter().next().map(interface),
        interfaces: others.into_iter().map(interface).collect(),
    }
}

/// Each interface once: a guest may name one twice, which readers of metrics do not forgive.
pub(super) fn distinct(all: &[InterfaceUsage]) -> impl Iterator<Item = &InterfaceUsage> {
    all.iter()
        .enumerate()
        .filter(|(at, one)| !all.iter().take(*at).any(|earlier| earlier.name == one.name))
        .map(|(_, one)| one)
}

fn interface(usage: &InterfaceUsage) -> NetworkInterfaceUsage {
    NetworkInterfaceUsage {
        name: usage.name.clone(),
        rx_bytes: number(usage.received_bytes),
        rx_errors: number(usage.received_errors),
        tx_bytes: number(usage.sent_bytes),
        tx_errors: number(usage.sent_errors),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::sampled::{Counted, Sampled};
    use super::*;

    fn sample<T: Counted>(value: T) -> Arc<Sample<T>> {
        let sampled = Sampled::default();
        sampled.record(value);
        sampled.last().unwrap()
    }

    fn value(number: Option<UInt64Value>) -> u64 {
        number.unwrap().value
    }

    #[test]
    fn the_working_set_never_goes_below_nothing() {
        let usage = |memory, memory_inactive_file| Usage { memory, memory_inactive_file, ..Usage::default() };
        assert_eq!(value(memory(&sample(usage(100, 30))).working_set_bytes), 70);
        assert_eq!(value(memory(&sample(usage(100, u64::MAX))).working_set_bytes), 0);
    }

    #[test]
    fn memory_is_available_only_below_a_limit() {
        let usage = |memory_limit| Usage { memory: 100, memory_inactive_file: 30, memory_limit, ..Usage::default() };
        assert_eq!(memory(&sample(usage(None))).available_bytes, None);
        assert_eq!(value(memory(&sample(usage(Some(200)))).available_bytes), 130);
        assert_eq!(value(memory(&sample(usage(Some(50)))).available_bytes), 0);
    }

    #[test]
    fn a_guests_absurd_numbers_end_at_the_largest() {
        let share = PressureShare { average_10: u32::MAX, total_us: u64::MAX, ..PressureShare::default() };
        let pressure = Some(Pressure { some: share, full: PressureShare::default() });
        let usage = Usage { cpu_us: u64::MAX, cpu_pressure: pressure, ..Usage::default() };
        let cpu = cpu(&sample(usage));
        assert_eq!(value(cpu.usage_core_nano_seconds), u64::MAX);
        assert_eq!(cpu.usage_nano_cores, None);
        let some = cpu.psi.unwrap().some.unwrap();
        assert_eq!((some.total, some.avg10), (u64::MAX, 100.0));
    }

    #[test]
    fn a_pod_without_a_cgroup_has_its_vmms_memory_and_no_cpu_time() {
        let stats = sample(PodStats { vmm_resident: 7, memory: 9, ..PodStats::default() });
        assert_eq!(pod_cpu(&stats), None);
        assert_eq!(value(pod_memory(&stats).working_set_bytes), 7);
        let stats = sample(PodStats { cgroup: "husk/a".into(), memory: 9, cpu_us: 2, ..PodStats::default() });
        assert_eq!(value(pod_cpu(&stats).unwrap().usage_core_nano_seconds), 2000);
        assert_eq!(value(pod_memory(&stats).working_set_bytes), 9);
    }

    #[test]
    fn the_default_interface_is_eth0_and_each_is_told_once() {
        let interface = |name: &str, received_bytes| InterfaceUsage {
            name: name.to_owned(),
            received_bytes,
            ..InterfaceUsage::default()
        };
        let all = vec![interface("net1", 1), interface("eth0", 2), interface("eth0", 3), interface("net1", 4)];
        let network = network(&sample(Usage { network: all, ..Usage::default() }));
        let default = network.default_interface.unwrap();
        assert_eq!((default.name.as_str(), value(default.rx_bytes)), ("eth0", 2));
        assert_eq!(network.interfaces.iter().map(|one| value(one.rx_bytes)).collect::<Vec<_>>(), [1]);
        assert!(network.timestamp > 0);
    }
}
