//! What the host has for VMs.

use crate::spec::Ceiling;

/// Environment variable: most vCPUs of a VM, 1 to 64, instead of the host's number of CPUs.
pub const MAX_VCPUS: &str = "HUSK_MAX_VCPUS";
/// Limit of the VMM.
const VCPUS: u8 = 64;

/// The most that one VM can be: all of the host. Where the kernel does not tell its memory, a VM cannot grow.
#[must_use]
pub(crate) fn ceiling() -> Ceiling {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let wanted = std::env::var(MAX_VCPUS).ok();
    Ceiling { memory_mib: kib(&meminfo, "MemTotal").unwrap_or(0) / 1024, vcpus: most_vcpus(wanted.as_deref()) }
}

fn most_vcpus(wanted: Option<&str>) -> u8 {
    let host = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let host = u8::try_from(host).unwrap_or(VCPUS).min(VCPUS);
    match wanted.map(|text| text.trim().parse()) {
        None => host,
        Some(Ok(vcpus @ 1..=VCPUS)) => vcpus,
        Some(_) => {
            tracing::warn!("{MAX_VCPUS} is not a number from 1 to {VCPUS}; VMs get at most the host's {host} CPUs");
            host
        }
    }
}

/// What the host can give at once without taking it from anybody: memory that is free or easily freed, and free swap.
#[must_use]
pub(crate) fn available_mib() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn available(meminfo: &str) -> Option<u64> {
    Some(kib(meminfo, "MemAvailable")?.saturating_add(kib(meminfo, "SwapFree").unwrap_or(0)) / 1024)
}

fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_and_free_swap_count() {
        let text = "MemTotal:  8000000 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\nSwapFree:  1048576 kB\n";
        assert_eq!(available(text), Some(5120));
        assert_eq!(available("MemAvailable: 2048 kB"), Some(2));
        assert_eq!(available("nonsense"), None);
        assert!(available_mib().is_some() && ceiling().memory_mib > 0);
    }

    #[test]
    fn the_most_vcpus_are_the_hosts_unless_a_number_is_given() {
        let host = most_vcpus(None);
        assert!((1..=VCPUS).contains(&host));
        assert_eq!((most_vcpus(Some("4")), most_vcpus(Some(" 64 "))), (4, 64));
        for bad in ["", "0", "65", "-1", "many"] {
            assert_eq!(most_vcpus(Some(bad)), host, "{bad}");
        }
    }
}
