//! What the guest's memory is used for, seen from inside.

use anyhow::{Context, Result};
use husk_tests::parity::{Case, HuskPod, Root};
use serde::Serialize;

/// A container that sees the processes of the whole guest, of which the agent is the first.
const CASE: &str = "
- name: agent
  spec: {linux: {namespaces: [{type: mount}, {type: ipc}, {type: uts}, {type: network}, {type: cgroup}]}}
  script: grep -hE '^(Name|VmRSS|RssAnon)' /proc/1/status
";

/// The agent's memory, in lines of `/proc/PID/status`, in a pod of its own.
pub(super) fn agent() -> String {
    let root = Root::new();
    let pod = HuskPod::new(&root);
    Case::list(CASE).iter().map(|case| pod.run(case).output).collect()
}

/// KiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Inside {
    /// The agent's resident size, and what of it is its own data; the rest is its program.
    agent_rss_kib: u64,
    agent_anon_kib: u64,
    /// The kernel's image, its page structures and what it reserved at its start.
    kernel_boot_kib: u64,
    /// What it took since: slab, stacks, page tables, per-CPU areas.
    kernel_kib: u64,
    /// Page cache; the agent's program is in it.
    cache_kib: u64,
    free_kib: u64,
}

impl Inside {
    /// Name and KiB of each.
    pub(super) fn rows(&self) -> [(&'static str, u64); 6] {
        [
            ("agent, resident", self.agent_rss_kib),
            ("agent, its own data", self.agent_anon_kib),
            ("kernel, reserved at its start", self.kernel_boot_kib),
            ("kernel, since", self.kernel_kib),
            ("page cache", self.cache_kib),
            ("free", self.free_kib),
        ]
    }
}

/// Reads the lines of [`agent`] and `/proc/meminfo` of a VM of so much RAM.
pub(super) fn look(text: &str, vm_mib: u64) -> Result<Inside> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        value.with_context(|| format!("no {name} in {text:?}"))
    };
    let sum = |names: &[&str]| names.iter().map(|name| kib(name)).sum::<Result<u64>>();
    Ok(Inside {
        agent_rss_kib: kib("VmRSS")?,
        agent_anon_kib: kib("RssAnon")?,
        kernel_boot_kib: (vm_mib * 1024).saturating_sub(kib("MemTotal")?),
        kernel_kib: sum(&["Slab", "KernelStack", "PageTables", "Percpu"])?,
        cache_kib: kib("Cached")?,
        free_kib: kib("MemFree")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_names() {
        let text = "VmRSS:\t    3000 kB\nRssAnon:\t 900 kB\nMemTotal:  180000 kB\nMemFree: 150000 kB\nCached: 5000 kB\n\
                    SwapCached: 7 kB\nSlab: 1000 kB\nKernelStack: 100 kB\nPageTables: 10 kB\nPercpu: 1 kB\n";
        let inside = look(text, 192).unwrap();
        assert_eq!(inside.rows().map(|(_, kib)| kib), [3000, 900, 16608, 1111, 5000, 150_000]);
        assert!(look("VmRSS: 1 kB\n", 192).is_err());
    }
}
