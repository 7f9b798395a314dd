//! The figures of all rounds.

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Cost, Sample, Way};
use crate::chart::{self, Bar};
use crate::spread::Spread;

const MIB: f64 = (1 << 20) as f64;

#[derive(Debug, Clone, Serialize)]
struct Row {
    name: &'static str,
    wall_s: Spread,
    cpu_s: Spread,
    /// Of medians: CPU time divided by that of decompressing and hashing the same blob.
    cpu_to_hashing: f64,
    /// Of medians: both divided by those of skopeo and umoci.
    wall_to_umoci: f64,
    cpu_to_umoci: f64,
    /// MiB; none where nothing is kept.
    disk_mib: Option<f64>,
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    rounds: usize,
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn of(samples: &[Sample]) -> Result<Self> {
        let of = |way| samples.iter().filter(move |sample: &&Sample| sample.way == way);
        let spreads = |way: Way| -> Option<(Spread, Spread)> {
            let spread = |figure: fn(&Cost) -> f64| Spread::of(of(way).map(|sample| figure(&sample.cost)));
            Some((spread(|cost| cost.wall.as_secs_f64())?, spread(|cost| cost.cpu.as_secs_f64())?))
        };
        let row = |way: Way| {
            let (wall_s, cpu_s) = spreads(way)?;
            let blob = if matches!(way, Way::Zstd | Way::HuskZstd) { Way::Zstd } else { Way::Gzip };
            let ((_, hashing), (umoci_wall, umoci_cpu)) = (spreads(blob)?, spreads(Way::Umoci)?);
            let keeps = !matches!(way, Way::Gzip | Way::Zstd);
            Some(Row {
                name: way.name(),
                wall_s,
                cpu_s,
                cpu_to_hashing: cpu_s.median / hashing.median,
                wall_to_umoci: wall_s.median / umoci_wall.median,
                cpu_to_umoci: cpu_s.median / umoci_cpu.median,
                disk_mib: of(way).next_back().filter(|_| keeps).map(|sample| mib(sample.disk)),
            })
        };
        let rows = Way::ALL.into_iter().map(row).collect::<Option<Vec<_>>>().context("no round")?;
        Ok(Self { rounds: of(Way::Husk).count(), rows })
    }

    /// CPU time of all.
    pub(super) fn chart(&self) -> String {
        let bars: Vec<Bar<'_>> = self.rows.iter().map(|row| Bar::new(row.name, row.cpu_s.median, "s")).collect();
        chart::bars("An image of 1 GiB from a registry: CPU time, median", &bars)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| median of {} | wall | CPU | CPU / hashing | wall / umoci | CPU / umoci | disk |", self.rounds)?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let Row { name, wall_s, cpu_s, cpu_to_hashing, wall_to_umoci, cpu_to_umoci, disk_mib } = row;
            let disk = disk_mib.map_or_else(|| "-".to_owned(), |mib| format!("{mib:.0} MiB"));
            writeln!(
                f,
                "| {name} | {:.1} s | {:.1} s | {cpu_to_hashing:.2} | {wall_to_umoci:.2} | {cpu_to_umoci:.2} | {disk} |",
                wall_s.median, cpu_s.median
            )?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn husk_is_compared_with_hashing_the_same_blob() {
        let sample = |(way, seconds)| {
            let cost = Cost { wall: Duration::from_secs(seconds), cpu: Duration::from_secs(2 * seconds) };
            Sample { way, cost, disk: 3 << 20 }
        };
        let seconds = [2, 3, 6, 1, 4];
        let samples: Vec<Sample> = Way::ALL.into_iter().zip(seconds).map(sample).collect();
        let text = Report::of(&samples).unwrap().to_string();
        assert!(text.contains("| husk pull, gzip | 3.0 s | 6.0 s | 1.50 | 0.50 | 0.50 | 3 MiB |"), "{text}");
        assert!(text.contains("| husk pull, zstd | 4.0 s | 8.0 s | 4.00 | 0.67 | 0.67 | 3 MiB |"), "{text}");
        assert!(text.contains("| zstd -dc, sha256sum |"), "{text}");
    }
}
