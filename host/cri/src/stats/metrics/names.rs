//! The metrics' names and what they mean.
//!
//! Of those that cri-tools' `pkg/validate/pod.go` wants, missing are `container_hugetlb_*` (a guest has no huge pages) and
//! `container_ulimits_soft`, which it lets be missing.

use super::family::{Family, counter, gauge};
use crate::api::MetricDescriptor;

macro_rules! families {
    ($($name:ident: $labels:literal = $kind:ident($text:literal, $help:literal, $keys:expr);)*) => {
        $(pub(super) const $name: Family<$labels> = $kind($text, $help, $keys);)*

        pub(super) fn descriptors() -> Vec<MetricDescriptor> {
            vec![$($name.descriptor()),*]
        }
    };
}

families! {
    LAST_SEEN: 0 = gauge("container_last_seen", "When it was last looked at, in seconds since the epoch.", []);
    START_TIME: 0 = gauge("container_start_time_seconds", "When it started, in seconds since the epoch.", []);

    CPU_USAGE: 1 = counter("container_cpu_usage_seconds_total", "CPU time so far, in seconds.", ["cpu"]);
    CPU_USER: 0 = counter("container_cpu_user_seconds_total", "CPU time in user mode so far, in seconds.", []);
    CPU_SYSTEM: 0 = counter("container_cpu_system_seconds_total", "CPU time in the kernel so far, in seconds.", []);
    CPU_PERIODS: 0 = counter("container_cpu_cfs_periods_total", "Periods of the CPU limit so far.", []);
    CPU_THROTTLED_PERIODS: 0 =
        counter("container_cpu_cfs_throttled_periods_total", "Periods in which the CPU limit held it back.", []);
    CPU_THROTTLED: 0 =
        counter("container_cpu_cfs_throttled_seconds_total", "Time that the CPU limit held it back, in seconds.", []);

    MEMORY_USAGE: 0 = gauge("container_memory_usage_bytes", "Memory in use, of every kind.", []);
    MEMORY_WORKING_SET: 0 =
        gauge("container_memory_working_set_bytes", "Memory in use but for files' blocks not used lately.", []);
    MEMORY_MAX_USAGE: 0 = gauge("container_memory_max_usage_bytes", "Most memory that was in use at a time.", []);
    MEMORY_RSS: 0 = gauge("container_memory_rss", "Anonymous memory, in bytes.", []);
    MEMORY_CACHE: 0 = gauge("container_memory_cache", "Files' blocks in memory, in bytes.", []);
    MEMORY_MAPPED_FILE: 0 = gauge("container_memory_mapped_file", "Mapped files' blocks in memory, in bytes.", []);
    MEMORY_KERNEL: 0 = gauge("container_memory_kernel_usage", "Memory of the kernel for it, in bytes.", []);
    MEMORY_SWAP: 0 = gauge("container_memory_swap", "Memory that is swapped out, in bytes.", []);
    MEMORY_FAILCNT: 0 = counter("container_memory_failcnt", "How often the memory limit held an allocation back.", []);
    MEMORY_FAILURES: 2 =
        counter("container_memory_failures_total", "Page faults and major page faults.", ["failure_type", "scope"]);
    OOM_EVENTS: 0 = counter("container_oom_events_total", "Processes ended for want of memory.", []);

    FS_USAGE: 1 = gauge("container_fs_usage_bytes", "What the writable layer takes of its disk.", ["device"]);
    FS_LIMIT: 1 = gauge("container_fs_limit_bytes", "Size of the writable layer's disk.", ["device"]);
    FS_INODES: 1 = gauge("container_fs_inodes_total", "Inodes of the writable layer's disk.", ["device"]);
    FS_INODES_FREE: 1 = gauge("container_fs_inodes_free", "Free inodes of the writable layer's disk.", ["device"]);
    FS_READS: 1 = counter("container_fs_reads_total", "Reads so far.", ["device"]);
    FS_READ_BYTES: 1 = counter("container_fs_reads_bytes_total", "Bytes read so far.", ["device"]);
    FS_WRITES: 1 = counter("container_fs_writes_total", "Writes so far.", ["device"]);
    FS_WRITE_BYTES: 1 = counter("container_fs_writes_bytes_total", "Bytes written so far.", ["device"]);
    BLKIO_USAGE: 4 = counter(
        "container_blkio_device_usage_total",
        "Bytes carried so far, by direction.",
        ["device", "major", "minor", "operation"]
    );

    PRESSURE_CPU_WAITING: 0 = counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Time for which some tasks waited for a CPU, in seconds.",
        []
    );
    PRESSURE_CPU_STALLED: 0 = counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Time for which all tasks waited for a CPU, in seconds.",
        []
    );
    PRESSURE_MEMORY_WAITING: 0 = counter(
        "container_pressure_memory_waiting_seconds_total",
        "Time for which some tasks waited for memory, in seconds.",
        []
    );
    PRESSURE_MEMORY_STALLED: 0 = counter(
        "container_pressure_memory_stalled_seconds_total",
        "Time for which all tasks waited for memory, in seconds.",
        []
    );
    PRESSURE_IO_WAITING: 0 = counter(
        "container_pressure_io_waiting_seconds_total",
        "Time for which some tasks waited for a disk, in seconds.",
        []
    );
    PRESSURE_IO_STALLED: 0 = counter(
        "container_pressure_io_stalled_seconds_total",
        "Time for which all tasks waited for a disk, in seconds.",
        []
    );

    PROCESSES: 0 = gauge("container_processes", "Processes.", []);
    THREADS: 0 = gauge("container_threads", "Threads.", []);
    THREADS_MAX: 0 = gauge("container_threads_max", "Most threads that it may have; 0 is no limit.", []);
    FILE_DESCRIPTORS: 0 = gauge("container_file_descriptors", "Open file descriptors.", []);
    SOCKETS: 0 = gauge("container_sockets", "Open sockets.", []);

    SPEC_CPU_PERIOD: 0 = gauge("container_spec_cpu_period", "Period of the CPU limit, in microseconds.", []);
    SPEC_CPU_QUOTA: 0 = gauge("container_spec_cpu_quota", "CPU limit, in microseconds of each period.", []);
    SPEC_CPU_SHARES: 0 = gauge("container_spec_cpu_shares", "Share of the CPUs when they are scarce.", []);
    SPEC_MEMORY_LIMIT: 0 = gauge("container_spec_memory_limit_bytes", "Memory limit; 0 is none.", []);
    SPEC_MEMORY_SWAP_LIMIT: 0 =
        gauge("container_spec_memory_swap_limit_bytes", "Limit of memory and swap together; 0 is none.", []);
    SPEC_MEMORY_RESERVATION: 0 =
        gauge("container_spec_memory_reservation_limit_bytes", "Memory that is kept for it; 0 is none.", []);

    NETWORK_RX_BYTES: 1 = counter("container_network_receive_bytes_total", "Bytes received so far.", ["interface"]);
    NETWORK_RX_PACKETS: 1 =
        counter("container_network_receive_packets_total", "Packets received so far.", ["interface"]);
    NETWORK_RX_ERRORS: 1 =
        counter("container_network_receive_errors_total", "Failures to receive so far.", ["interface"]);
    NETWORK_RX_DROPPED: 1 = counter(
        "container_network_receive_packets_dropped_total",
        "Packets dropped in receiving so far.",
        ["interface"]
    );
    NETWORK_TX_BYTES: 1 = counter("container_network_transmit_bytes_total", "Bytes sent so far.", ["interface"]);
    NETWORK_TX_PACKETS: 1 = counter("container_network_transmit_packets_total", "Packets sent so far.", ["interface"]);
    NETWORK_TX_ERRORS: 1 = counter("container_network_transmit_errors_total", "Failures to send so far.", ["interface"]);
    NETWORK_TX_DROPPED: 1 = counter(
        "container_network_transmit_packets_dropped_total",
        "Packets dropped in sending so far.",
        ["interface"]
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_once_with_a_help_and_labels() {
        let all = descriptors();
        let mut names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|one| !one.help.is_empty() && one.label_keys.len() >= 6));
    }
}
