//! What a container takes of its pod's guest, or all of them together.

use serde::Serialize;

use crate::api;

/// Resource use of a task, by the guest's count: more than [`crate::Stats`]. Bytes and microseconds. Every number is the
/// guest's word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub cpu_us: u64,
    pub cpu_user_us: u64,
    pub cpu_system_us: u64,
    /// Periods of the CPU limit, those in which it held something back, and for how long.
    pub cpu_periods: u64,
    pub cpu_throttled_periods: u64,
    pub cpu_throttled_us: u64,
    pub memory: u64,
    /// `None` = no limit.
    pub memory_limit: Option<u64>,
    pub memory_peak: u64,
    pub memory_anon: u64,
    pub memory_file: u64,
    pub memory_inactive_file: u64,
    pub memory_mapped_file: u64,
    pub memory_kernel: u64,
    pub memory_swap: u64,
    /// How often the memory limit held an allocation back.
    pub memory_limit_hits: u64,
    pub oom_kills: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub threads: u64,
    /// `None` = no limit.
    pub threads_limit: Option<u64>,
    /// `None` = the guest's kernel does not keep it.
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
    pub io: Vec<DeviceIo>,
    /// The pod's interfaces but for the loopback; only with the sandbox's.
    pub network: Vec<InterfaceUsage>,
    /// Only of a container, as what follows.
    pub processes: u64,
    /// `None` = too many to be counted.
    pub descriptors: Option<u64>,
    pub sockets: Option<u64>,
    /// `None` = it has no writable layer.
    pub layer: Option<LayerUsage>,
}

/// For how long some tasks, and all of them, waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pressure {
    pub some: PressureShare,
    pub full: PressureShare,
}

/// Averages are of the last 10, 60 and 300 seconds, in hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PressureShare {
    pub average_10: u32,
    pub average_60: u32,
    pub average_300: u32,
    pub total_us: u64,
}

/// Traffic with one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceIo {
    pub major: u32,
    pub minor: u32,
    /// `vda`; empty when it has none.
    pub device: String,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_operations: u64,
    pub write_operations: u64,
}

/// Traffic of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceUsage {
    pub name: String,
    pub received_bytes: u64,
    pub received_packets: u64,
    pub received_errors: u64,
    pub received_dropped: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub sent_errors: u64,
    pub sent_dropped: u64,
}

/// A container's writable layer, and the pod's disk that it is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LayerUsage {
    pub used_bytes: u64,
    pub inodes_used: u64,
    /// `vda`; empty when it has none.
    pub device: String,
    pub disk_bytes: u64,
    pub disk_inodes: u64,
    pub disk_inodes_free: u64,
}

impl From<api::Usage> for Usage {
    fn from(usage: api::Usage) -> Self {
        let limit = |number: u64| Some(number).filter(|number| *number != u64::MAX);
        Self {
            cpu_us: usage.cpu_us,
            cpu_user_us: usage.cpu_user_us,
            cpu_system_us: usage.cpu_system_us,
            cpu_periods: usage.cpu_periods,
            cpu_throttled_periods: usage.cpu_throttled_periods,
            cpu_throttled_us: usage.cpu_throttled_us,
            memory: usage.memory,
            memory_limit: limit(usage.memory_limit),
            memory_peak: usage.memory_peak,
            memory_anon: usage.memory_anon,
            memory_file: usage.memory_file,
            memory_inactive_file: usage.memory_inactive_file,
            memory_mapped_file: usage.memory_mapped_file,
            memory_kernel: usage.memory_kernel,
            memory_swap: usage.memory_swap,
            memory_limit_hits: usage.memory_limit_hits,
            oom_kills: usage.oom_kills,
            page_faults: usage.page_faults,
            major_page_faults: usage.major_page_faults,
            threads: usage.threads,
            threads_limit: limit(usage.threads_limit),
            cpu_pressure: usage.cpu_pressure.into_option().map(Into::into),
            memory_pressure: usage.memory_pressure.into_option().map(Into::into),
            io_pressure: usage.io_pressure.into_option().map(Into::into),
            io: usage.io.into_iter().map(Into::into).collect(),
            network: usage.network.into_iter().map(Into::into).collect(),
            processes: usage.processes,
            descriptors: usage.descriptors,
            sockets: usage.sockets,
            layer: usage.layer.into_option().map(Into::into),
        }
    }
}

impl From<api::Pressure> for Pressure {
    fn from(pressure: api::Pressure) -> Self {
        let share = |share: Option<api::PressureShare>| share.map(Into::into).unwrap_or_default();
        Self { some: share(pressure.some.into_option()), full: share(pressure.full.into_option()) }
    }
}

impl From<api::PressureShare> for PressureShare {
    fn from(share: api::PressureShare) -> Self {
        let api::PressureShare { average_10, average_60, average_300, total_us, .. } = share;
        Self { average_10, average_60, average_300, total_us }
    }
}

impl From<api::DeviceIo> for DeviceIo {
    fn from(io: api::DeviceIo) -> Self {
        let api::DeviceIo { major, minor, device, read_bytes, write_bytes, read_operations, write_operations, .. } = io;
        Self { major, minor, device, read_bytes, write_bytes, read_operations, write_operations }
    }
}

impl From<api::InterfaceUsage> for InterfaceUsage {
    fn from(usage: api::InterfaceUsage) -> Self {
        Self {
            name: usage.name,
            received_bytes: usage.received_bytes,
            received_packets: usage.received_packets,
            received_errors: usage.received_errors,
            received_dropped: usage.received_dropped,
            sent_bytes: usage.sent_bytes,
            sent_packets: usage.sent_packets,
            sent_errors: usage.sent_errors,
            sent_dropped: usage.sent_dropped,
        }
    }
}

impl From<api::LayerUsage> for LayerUsage {
    fn from(usage: api::LayerUsage) -> Self {
        let api::LayerUsage { used_bytes, inodes_used, device, disk_bytes, disk_inodes, disk_inodes_free, .. } = usage;
        Self { used_bytes, inodes_used, device, disk_bytes, disk_inodes, disk_inodes_free }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_and_no_number_are_said_as_such() {
        let wire = api::Usage { memory_limit: u64::MAX, threads_limit: 7, sockets: Some(0), ..api::Usage::default() };
        let usage = Usage::from(wire);
        assert_eq!((usage.memory_limit, usage.threads_limit), (None, Some(7)));
        assert_eq!((usage.sockets, usage.descriptors, usage.layer, usage.io_pressure), (Some(0), None, None, None));
    }
}
