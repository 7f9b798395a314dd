//! Boots the same kernel and agent under husk-vmm and under QEMU's microvm machine, turn by turn, and compares what
//! both take: time from spawn until the agent is ready, and memory beyond the guest's own.
//!
//! Both machines have one CPU, the same RAM, a serial console into a file, and the port that the agent writes when it
//! is ready; the clock of both runs in this process. In an emulated box the figures mean something only beside each
//! other, which is why the report leads with ratios.

mod chart;
mod husk;
mod memory;
mod qemu;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

/// RAM of either guest. An odd size, so that its mapping is told from any other by its length.
const GUEST_MIB: u64 = 250;
/// Well above what an emulated machine takes.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Parser)]
#[command(about = "Compare husk-vmm with QEMU's microvm machine")]
struct Cli {
    /// How many boots of each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where bench.json, boot.svg and memory.svg are written.
    #[arg(long, default_value = ".")]
    out: PathBuf,
}

/// What both machines run.
#[derive(Debug)]
struct Guest {
    kernel: PathBuf,
    initramfs: PathBuf,
}

/// One boot, measured from outside.
#[derive(Debug, Clone)]
struct Boot {
    /// Spawn of the process to the agent's ready byte.
    ready: Duration,
    memory: memory::Usage,
    /// The monitor's own account, where it has one: step and microseconds since its start.
    steps: Vec<(&'static str, u64)>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let prefix = PathBuf::from(std::env::var_os("HUSK_PREFIX").context("HUSK_PREFIX is not set; use tests/bench/run")?);
    let lib = prefix.join("lib/husk");
    let guest = Guest { kernel: lib.join("vmlinux"), initramfs: lib.join("initramfs.cpio") };
    let vmm = prefix.join("bin/husk-vmm");

    let (mut husk, mut qemu) = (Vec::new(), Vec::new());
    // Round 0 fills the page cache and is not counted.
    for round in 0..=cli.rounds {
        eprintln!("round {round} of {}", cli.rounds);
        let boots = [
            husk::boot(&vmm, &guest).context("booting under husk-vmm")?,
            qemu::boot(&guest).context("booting under QEMU's microvm")?,
        ];
        if round > 0 {
            let [of_husk, of_qemu] = boots;
            husk.push(of_husk);
            qemu.push(of_qemu);
        }
    }

    let report = report::Report::of(&husk, &qemu).context("summing up")?;
    println!("{report}");
    let write = |name: &str, content: String| {
        let path = cli.out.join(name);
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    };
    write("bench.json", serde_json::to_string_pretty(&report)?)?;
    write("boot.svg", report.boot_chart())?;
    write("memory.svg", report.memory_chart())
}
