//! Compares husk-vmm with QEMU's microvm machine: `boot`, the time to a ready agent and the monitor's memory, `io`, the
//! devices, and `idle`, what a pod costs that does nothing. And `convert`, `husk pull` with other ways to get an image.
//!
//! In an emulated box the figures mean something only beside each other: both sides run turn by turn, and the reports
//! lead with ratios.

mod boot;
mod chart;
mod convert;
mod idle;
mod io;
mod spread;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

#[derive(Debug, Parser)]
#[command(about = "Compare husk-vmm with QEMU's microvm machine")]
struct Cli {
    /// What is compared.
    #[arg(value_enum, default_value_t = Subject::Boot)]
    subject: Subject,
    /// How many times each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where results and charts are written.
    #[arg(long, default_value = ".")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Subject {
    /// Time to a ready agent, and memory; bench.json, boot.svg and memory.svg.
    Boot,
    /// Files, disks and network; io.json, and a chart of each.
    Io,
    /// CPU, wake-ups and memory of a pod that does nothing; idle.json.
    Idle,
    /// Getting an image from a registry; convert.md, convert.json and convert.svg.
    Convert,
}

/// What a comparison needs to know.
#[derive(Debug)]
struct Run {
    rounds: usize,
    /// Husk as a package would install it.
    prefix: PathBuf,
    out: PathBuf,
}

impl Run {
    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.out.join(name);
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    }
}

fn main() -> Result<()> {
    let Cli { subject, rounds, out } = Cli::parse();
    let prefix = PathBuf::from(std::env::var_os("HUSK_PREFIX").context("HUSK_PREFIX is not set; use tests/bench/run")?);
    let run = Run { rounds, prefix, out };
    match subject {
        Subject::Boot => boot::run(&run),
        Subject::Io => io::run(&run),
        Subject::Idle => idle::run(&run),
        Subject::Convert => convert::run(&run),
    }
}
