//! Whether the host has the memory that a VM wants.

/// What the host can give at once without taking it from anybody: memory that is free or easily freed, and free swap.
#[must_use]
pub(crate) fn available_mib() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn available(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    Some(kib("MemAvailable")?.saturating_add(kib("SwapFree").unwrap_or(0)) / 1024)
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
        assert!(available_mib().is_some());
    }
}
