//! The figures of all windows.

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Part;
use super::guest::Inside;
use crate::spread::Spread;

#[derive(Debug, Clone, Serialize)]
struct Row {
    name: &'static str,
    /// Thousandths of a CPU.
    cpu_milli: Spread,
    wakeups_per_second: Spread,
    /// KiB beside guest RAM.
    rss_kib: u64,
    pss_kib: u64,
    private_dirty_kib: u64,
    /// KiB of guest RAM in use; 0 for what has no guest.
    guest_rss_kib: u64,
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    windows: usize,
    parts: Vec<Row>,
    guest: Inside,
}

impl Report {
    pub(super) fn of(parts: &[Part], guest: Inside) -> Result<Self> {
        let row = |part: &Part| {
            let spread = |figure: &dyn Fn(&super::Activity) -> f64| Spread::of(part.windows.iter().map(figure));
            Some(Row {
                name: part.name,
                cpu_milli: spread(&|window| window.cpu * 1000.0)?,
                wakeups_per_second: spread(&|window| window.wakeups)?,
                rss_kib: part.memory.rss,
                pss_kib: part.memory.pss,
                private_dirty_kib: part.memory.private_dirty,
                guest_rss_kib: part.memory.guest_rss,
            })
        };
        let rows = parts.iter().map(row).collect::<Option<Vec<_>>>().context("no window")?;
        Ok(Self { windows: parts.first().map_or(0, |part| part.windows.len()), parts: rows, guest })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "a pod that does nothing, and QEMU's microvm with the same kernel and agent, {} windows\n",
            self.windows
        )?;
        writeln!(
            f,
            "{:14} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10}",
            "median", "CPU, 1/1000", "wake-ups/s", "RSS, KiB", "PSS, KiB", "dirty, KiB", "guest, KiB"
        )?;
        for row in &self.parts {
            writeln!(
                f,
                "{:14} {:10.2} {:12.1} {:10} {:10} {:10} {:10}",
                row.name,
                row.cpu_milli.median,
                row.wakeups_per_second.median,
                row.rss_kib,
                row.pss_kib,
                row.private_dirty_kib,
                row.guest_rss_kib
            )?;
        }
        writeln!(f, "\nin the pod's guest, KiB:")?;
        for (name, kib) in self.guest.rows() {
            writeln!(f, "  {name:30} {kib:10}")?;
        }
        Ok(())
    }
}
