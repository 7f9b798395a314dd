//! The figures of all rounds: a table for people, JSON for machines, charts for the documentation.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Subject;
use super::transcript::{Amount, Phase};
use crate::Run;
use crate::chart::{self, Bar};
use crate::spread::Spread;

const MIB: f64 = (1 << 20) as f64;

/// The kinds of device: what their workloads' names begin with, and the name of their chart.
const KINDS: [(&str, &str, &str); 4] = [
    ("virtio-fs ", "Shared directory (virtio-fs)", "io-fs.svg"),
    ("scratch ", "Scratch disk (ext4 on virtio-blk)", "io-scratch.svg"),
    ("EROFS ", "Image (EROFS on virtio-blk)", "io-erofs.svg"),
    ("net ", "Network (virtio-net on a tap)", "io-net.svg"),
];

/// Everything that was measured: workloads in the order in which they ran.
#[derive(Debug, Default)]
pub(super) struct Report {
    workloads: Vec<(String, BTreeMap<Subject, Vec<Phase>>)>,
}

/// One subject's figures for a workload.
#[derive(Debug, Clone, Serialize)]
struct Figures {
    subject: &'static str,
    /// Microseconds for a MiB or for an operation.
    time_us: Spread,
    cpu_us: Spread,
    /// husk-vmm's medians divided by this one's: below 1 is less.
    ratio_time: f64,
    ratio_cpu: f64,
}

/// A workload with the figures of all who ran it, husk-vmm first.
#[derive(Debug, Clone, Serialize)]
struct Row {
    workload: String,
    per: &'static str,
    figures: Vec<Figures>,
}

impl Report {
    pub(super) fn add(&mut self, subject: Subject, phases: Vec<Phase>) {
        for phase in phases {
            let at = self.workloads.iter().position(|(name, _)| *name == phase.name);
            let at = at.unwrap_or_else(|| {
                self.workloads.push((phase.name.clone(), BTreeMap::new()));
                self.workloads.len() - 1
            });
            if let Some((_, subjects)) = self.workloads.get_mut(at) {
                subjects.entry(subject).or_default().push(phase);
            }
        }
    }

    /// Leaves everything that is known so far where results go.
    pub(super) fn write(&self, run: &Run) -> Result<()> {
        run.write("io.md", &self.to_string())?;
        run.write("io.json", &serde_json::to_string_pretty(&self.rows()?)?)?;
        self.charts()?.iter().try_for_each(|(name, chart)| run.write(name, chart))
    }

    fn rows(&self) -> Result<Vec<Row>> {
        self.workloads.iter().map(|(name, subjects)| row(name, subjects).with_context(|| name.clone())).collect()
    }

    /// File names and pictures.
    fn charts(&self) -> Result<Vec<(String, String)>> {
        let rows = self.rows()?;
        let charts = KINDS.iter().map(|(prefix, title, file)| {
            let of_kind = rows.iter().filter(|row| row.workload.starts_with(prefix));
            let bars: Vec<(String, f64)> = of_kind
                .flat_map(|row| {
                    let what = row.workload.strip_prefix(prefix).unwrap_or_default();
                    let husk = row.figures.first().map_or(1.0, |husk| husk.time_us.median);
                    let others = row.figures.iter();
                    others.map(move |of| (format!("{}: {what}", of.subject), 100.0 * of.time_us.median / husk))
                })
                .collect();
            let bars: Vec<Bar<'_>> = bars.iter().map(|(name, value)| Bar::new(name, *value, "%")).collect();
            ((*file).to_owned(), chart::bars(&format!("{title}: time, husk-vmm = 100 %"), &bars))
        });
        Ok(charts.collect())
    }
}

fn row(name: &str, subjects: &BTreeMap<Subject, Vec<Phase>>) -> Option<Row> {
    let spreads = |phases: &[Phase]| -> Option<(Spread, Spread)> {
        let per_unit = |time: fn(&Phase) -> Duration| {
            Spread::of(phases.iter().map(|phase| time(phase).as_secs_f64() * 1e6 / units(phase.amount)))
        };
        Some((per_unit(|phase| phase.took)?, per_unit(|phase| phase.cpu)?))
    };
    let (husk_time, husk_cpu) = spreads(subjects.get(&Subject::Husk)?)?;
    let figures = subjects.iter().map(|(subject, phases)| {
        let (time_us, cpu_us) = spreads(phases)?;
        Some(Figures {
            subject: subject.name(),
            ratio_time: husk_time.median / time_us.median,
            ratio_cpu: husk_cpu.median / cpu_us.median,
            time_us,
            cpu_us,
        })
    });
    let per = match subjects.get(&Subject::Husk)?.first()?.amount {
        Amount::Bytes(_) => "MiB",
        Amount::Operations(_) => "operation",
    };
    Some(Row { workload: name.to_owned(), per, figures: figures.collect::<Option<_>>()? })
}

/// MiB or operations.
fn units(amount: Amount) -> f64 {
    match amount {
        Amount::Bytes(count) => f64::from(count) / MIB,
        Amount::Operations(count) => f64::from(count),
    }
}

/// Throughput for bytes, time for operations.
fn speed(row: &Row, time: Spread) -> String {
    match row.per {
        "MiB" => format!("{:.0} MiB/s", 1e6 / time.median),
        _ => format!("{:.0} µs", time.median),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows().map_err(|_| fmt::Error)?;
        writeln!(f, "| workload | who | speed | ratio of time | CPU | ratio of CPU |\n|---|---|---|---|---|---|")?;
        for row in &rows {
            for (index, of) in row.figures.iter().enumerate() {
                let workload = if index == 0 { row.workload.as_str() } else { "" };
                let cpu = format!("{:.0} µs per {}", of.cpu_us.median, row.per);
                let ratio = |value: f64| if index == 0 { String::new() } else { format!("{value:.2}") };
                let (time_ratio, cpu_ratio) = (ratio(of.ratio_time), ratio(of.ratio_cpu));
                let speed = speed(row, of.time_us);
                writeln!(f, "| {workload} | {} | {speed} | {time_ratio} | {cpu} | {cpu_ratio} |", of.subject)?;
            }
        }
        writeln!(f, "\nRatios are husk-vmm's medians divided by the other's: below 1 is less time, less CPU.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &str, milliseconds: u64) -> Phase {
        let took = Duration::from_millis(milliseconds);
        Phase { name: name.to_owned(), took, cpu: took / 2, amount: Amount::Bytes(2 << 20) }
    }

    #[test]
    fn ratios_are_ours_divided_by_theirs() {
        let mut report = Report::default();
        report.add(Subject::Qemu, vec![phase("net send", 8)]);
        report.add(Subject::Husk, vec![phase("net send", 2)]);
        let rows = report.rows().unwrap();
        let [husk, qemu] = rows[0].figures.as_slice() else { panic!("{rows:?}") };
        assert_eq!((husk.subject, husk.time_us.median, husk.cpu_us.median), ("husk-vmm", 1000.0, 500.0));
        assert_eq!((qemu.subject, qemu.ratio_time, qemu.ratio_cpu), ("QEMU", 0.25, 0.25));
        assert!(report.to_string().contains("| net send | husk-vmm | 1000 MiB/s |  | 500 µs per MiB |  |"), "{report}");
        assert_eq!(report.charts().unwrap().len(), KINDS.len());
    }
}
