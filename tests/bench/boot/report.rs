//! The figures of all rounds: a table for people, JSON for machines, charts for the documentation.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Boot;
use crate::chart::{self, Bar};
use crate::spread::Spread;

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.1} {:9.1} {:9.1}", self.median, self.least, self.greatest)
    }
}

/// One monitor's figures over all rounds.
#[derive(Debug, Clone, Serialize)]
struct Monitor {
    /// Milliseconds from spawn to ready.
    ready_ms: Spread,
    /// KiB beside guest RAM.
    rss_kib: Spread,
    pss_kib: Spread,
    private_dirty_kib: Spread,
    /// KiB of guest RAM in use.
    guest_rss_kib: Spread,
    /// The monitor's own account of the boot: milliseconds since its start.
    timeline_ms: Vec<(&'static str, Spread)>,
}

impl Monitor {
    fn of(boots: &[Boot]) -> Option<Self> {
        let spread = |figure: &dyn Fn(&Boot) -> f64| Spread::of(boots.iter().map(figure));
        let steps = boots.first()?.steps.iter().map(|(name, _)| *name).enumerate();
        let timeline = steps.map(|(index, name)| {
            let at = |boot: &Boot| boot.steps.get(index).map(|(_, us)| milliseconds(Duration::from_micros(*us)));
            Some((name, Spread::of(boots.iter().filter_map(at))?))
        });
        Some(Self {
            ready_ms: spread(&|b| milliseconds(b.ready))?,
            rss_kib: spread(&|b| kib(b.memory.rss))?,
            pss_kib: spread(&|b| kib(b.memory.pss))?,
            private_dirty_kib: spread(&|b| kib(b.memory.private_dirty))?,
            guest_rss_kib: spread(&|b| kib(b.memory.guest_rss))?,
            timeline_ms: timeline.collect::<Option<_>>()?,
        })
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    rounds: usize,
    husk_vmm: Monitor,
    qemu_microvm: Monitor,
    /// husk-vmm divided by QEMU, by medians: below 1 is less.
    ratio_ready: f64,
    ratio_rss: f64,
    ratio_pss: f64,
    ratio_private_dirty: f64,
}

impl Report {
    /// Sums up the boots of both.
    pub(crate) fn of(husk: &[Boot], qemu: &[Boot]) -> Result<Self> {
        let husk_vmm = Monitor::of(husk).context("no boot of husk-vmm")?;
        let qemu_microvm = Monitor::of(qemu).context("no boot of QEMU")?;
        let ratio = |figure: fn(&Monitor) -> Spread| figure(&husk_vmm).median / figure(&qemu_microvm).median;
        Ok(Self {
            rounds: husk.len(),
            ratio_ready: ratio(|m| m.ready_ms),
            ratio_rss: ratio(|m| m.rss_kib),
            ratio_pss: ratio(|m| m.pss_kib),
            ratio_private_dirty: ratio(|m| m.private_dirty_kib),
            husk_vmm,
            qemu_microvm,
        })
    }

    /// Time from spawn to ready.
    pub(crate) fn boot_chart(&self) -> String {
        let bar = |name, monitor: &Monitor| Bar::new(name, monitor.ready_ms.median, "ms");
        let bars = [bar("husk-vmm", &self.husk_vmm), bar("QEMU microvm", &self.qemu_microvm)];
        chart::bars("Spawn to agent ready, median", &bars)
    }

    /// Memory beside the guest's.
    pub(crate) fn memory_chart(&self) -> String {
        let bar = |name, spread: Spread| Bar::new(name, spread.median / 1024.0, "MiB");
        let bars = [
            bar("husk-vmm, resident", self.husk_vmm.rss_kib),
            bar("QEMU microvm, resident", self.qemu_microvm.rss_kib),
            bar("husk-vmm, private dirty", self.husk_vmm.private_dirty_kib),
            bar("QEMU microvm, private dirty", self.qemu_microvm.private_dirty_kib),
        ];
        chart::bars("Monitor's memory without guest RAM, median", &bars)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rounds, husk-vmm and QEMU's microvm in turn; same kernel, same agent\n", self.rounds)?;
        writeln!(f, "{:34} {:>9} {:>9} {:>9}   ratio", "", "median", "least", "greatest")?;
        let mut pair = |name: &str, figure: fn(&Monitor) -> Spread, ratio: f64| {
            writeln!(f, "{:34} {}", format!("husk-vmm      {name}"), figure(&self.husk_vmm))?;
            writeln!(f, "{:34} {}   {ratio:.2}", format!("QEMU microvm  {name}"), figure(&self.qemu_microvm))
        };
        pair("spawn to ready, ms", |m| m.ready_ms, self.ratio_ready)?;
        pair("resident, KiB", |m| m.rss_kib, self.ratio_rss)?;
        pair("proportional, KiB", |m| m.pss_kib, self.ratio_pss)?;
        pair("private dirty, KiB", |m| m.private_dirty_kib, self.ratio_private_dirty)?;
        writeln!(
            f,
            "\nMemory is the monitor's own, without guest RAM. Boot timeline of husk-vmm, ms since its start:"
        )?;
        for (name, spread) in &self.husk_vmm.timeline_ms {
            writeln!(f, "{:34} {spread}", format!("  {name}"))?;
        }
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "KiB of a process are far below 2^52")]
fn kib(value: u64) -> f64 {
    value as f64
}
