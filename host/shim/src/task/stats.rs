//! The guest's statistics as containerd reads them.

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, NetworkStat, PidsStat,
};
use husk_pod::v1::ContainerStatsResponse;

/// `io.containerd.cgroups.v2.Metrics` of one cgroup of the guest.
pub(super) fn metrics(stats: &ContainerStatsResponse) -> Metrics {
    let cpu = CPUStat {
        usage_usec: stats.cpu_usage_us,
        user_usec: stats.cpu_user_us,
        system_usec: stats.cpu_system_us,
        nr_periods: stats.cpu_periods,
        nr_throttled: stats.cpu_throttled_periods,
        throttled_usec: stats.cpu_throttled_us,
        ..CPUStat::default()
    };
    let memory = MemoryStat {
        usage: stats.memory_usage,
        usage_limit: stats.memory_limit,
        anon: stats.memory_anon,
        file: stats.memory_file,
        inactive_file: stats.memory_inactive_file,
        pgfault: stats.memory_page_faults,
        pgmajfault: stats.memory_major_page_faults,
        ..MemoryStat::default()
    };
    let events = MemoryEvents { oom: stats.memory_oom, oom_kill: stats.memory_oom_kill, ..MemoryEvents::default() };
    let usage = stats
        .io
        .iter()
        .map(|device| IOEntry {
            major: u64::from(device.major),
            minor: u64::from(device.minor),
            rbytes: device.read_bytes,
            wbytes: device.write_bytes,
            rios: device.read_operations,
            wios: device.write_operations,
            ..IOEntry::default()
        })
        .collect();
    let network = stats.network.iter().map(|interface| NetworkStat {
        name: interface.name.clone(),
        rx_bytes: interface.received_bytes,
        rx_packets: interface.received_packets,
        rx_errors: interface.received_errors,
        rx_dropped: interface.received_dropped,
        tx_bytes: interface.sent_bytes,
        tx_packets: interface.sent_packets,
        tx_errors: interface.sent_errors,
        tx_dropped: interface.sent_dropped,
        ..NetworkStat::default()
    });
    Metrics {
        network: network.collect(),
        cpu: Some(cpu).into(),
        memory: Some(memory).into(),
        memory_events: Some(events).into(),
        pids: Some(PidsStat { current: stats.pids_current, limit: stats.pids_limit, ..PidsStat::default() }).into(),
        io: Some(IOStat { usage, ..IOStat::default() }).into(),
        ..Metrics::default()
    }
}
