//! The guest's statistics as `husk.shim.v1` has them, made fit for whoever reads them: numbers are the guest's word, but
//! names and the lengths of lists are not.

use husk_client::api;
use husk_pod::v1;

/// More than a pod has of either.
const MAX_DEVICES: usize = 64;
const MAX_INTERFACES: usize = 32;
/// Longest name of a device or an interface that is believed; the kernel's own bounds are 31 (`DISK_NAME_LEN`) and 15
/// (`IFNAMSIZ`).
const MAX_NAME: usize = 31;

pub(super) fn usage(stats: v1::ContainerStatsResponse) -> api::Usage {
    api::Usage {
        cpu_us: stats.cpu_usage_us,
        cpu_user_us: stats.cpu_user_us,
        cpu_system_us: stats.cpu_system_us,
        cpu_periods: stats.cpu_periods,
        cpu_throttled_periods: stats.cpu_throttled_periods,
        cpu_throttled_us: stats.cpu_throttled_us,
        memory: stats.memory_usage,
        memory_limit: stats.memory_limit,
        memory_peak: stats.memory_peak,
        memory_anon: stats.memory_anon,
        memory_file: stats.memory_file,
        memory_inactive_file: stats.memory_inactive_file,
        memory_mapped_file: stats.memory_mapped_file,
        memory_kernel: stats.memory_kernel,
        memory_swap: stats.memory_swap,
        memory_limit_hits: stats.memory_limit_hits,
        oom_kills: stats.memory_oom_kill,
        page_faults: stats.memory_page_faults,
        major_page_faults: stats.memory_major_page_faults,
        threads: stats.pids_current,
        threads_limit: stats.pids_limit,
        cpu_pressure: stats.cpu_pressure.map(pressure).into(),
        memory_pressure: stats.memory_pressure.map(pressure).into(),
        io_pressure: stats.io_pressure.map(pressure).into(),
        io: stats.io.into_iter().take(MAX_DEVICES).map(device).collect(),
        network: stats.network.into_iter().filter_map(interface).take(MAX_INTERFACES).collect(),
        processes: stats.processes,
        descriptors: stats.descriptors,
        sockets: stats.sockets,
        layer: stats.layer.map(layer).into(),
        ..api::Usage::default()
    }
}

/// A name as the kernel gives them, or nothing.
fn name(text: &str) -> Option<String> {
    let is_name = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_name.then(|| text.to_owned())
}

fn device(stats: v1::IoStats) -> api::DeviceIo {
    api::DeviceIo {
        major: stats.major,
        minor: stats.minor,
        device: name(&stats.device).unwrap_or_default(),
        read_bytes: stats.read_bytes,
        write_bytes: stats.write_bytes,
        read_operations: stats.read_operations,
        write_operations: stats.write_operations,
        ..api::DeviceIo::default()
    }
}

/// An interface without a name is none.
fn interface(stats: v1::NetworkStats) -> Option<api::InterfaceUsage> {
    Some(api::InterfaceUsage {
        name: name(&stats.name)?,
        received_bytes: stats.received_bytes,
        received_packets: stats.received_packets,
        received_errors: stats.received_errors,
        received_dropped: stats.received_dropped,
        sent_bytes: stats.sent_bytes,
        sent_packets: stats.sent_packets,
        sent_errors: stats.sent_errors,
        sent_dropped: stats.sent_dropped,
        ..api::InterfaceUsage::default()
    })
}

fn layer(stats: v1::LayerStats) -> api::LayerUsage {
    api::LayerUsage {
        used_bytes: stats.used_bytes,
        inodes_used: stats.inodes_used,
        device: name(&stats.device).unwrap_or_default(),
        disk_bytes: stats.disk_bytes,
        disk_inodes: stats.disk_inodes,
        disk_inodes_free: stats.disk_inodes_free,
        ..api::LayerUsage::default()
    }
}

fn pressure(stats: v1::Pressure) -> api::Pressure {
    let share = |share: v1::PressureShare| api::PressureShare {
        average_10: share.average_10,
        average_60: share.average_60,
        average_300: share.average_300,
        total_us: share.total_us,
        ..api::PressureShare::default()
    };
    api::Pressure { some: stats.some.map(share).into(), full: stats.full.map(share).into(), ..api::Pressure::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> api::Usage {
        let network = |name: &&str| v1::NetworkStats { name: (*name).to_owned(), ..v1::NetworkStats::default() };
        let io = |name: &&str| v1::IoStats { device: (*name).to_owned(), ..v1::IoStats::default() };
        usage(v1::ContainerStatsResponse {
            network: names.iter().map(network).collect(),
            io: names.iter().map(io).collect(),
            ..v1::ContainerStatsResponse::default()
        })
    }

    #[test]
    fn names_are_believed_only_when_a_kernel_could_have_given_them() {
        let long = "x".repeat(MAX_NAME + 1);
        let usage = named(&["eth0", "", "a b", "\u{1b}[2J", "\u{e9}", &long]);
        assert_eq!(usage.network.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["eth0"]);
        assert_eq!(usage.io.iter().map(|one| one.device.as_str()).collect::<Vec<_>>(), ["eth0", "", "", "", "", ""]);
    }

    #[test]
    fn lists_end() {
        let usage = named(&["a"; 1000]);
        assert_eq!((usage.network.len(), usage.io.len()), (MAX_INTERFACES, MAX_DEVICES));
    }

    #[test]
    fn what_the_guest_does_not_say_is_absent() {
        let usage = named(&[]);
        assert_eq!((usage.descriptors, usage.sockets), (None, None));
        assert!(usage.layer.is_none() && usage.cpu_pressure.is_none());
    }
}
