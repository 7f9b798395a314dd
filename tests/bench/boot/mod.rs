//! Boots the same kernel and agent under husk-vmm and under QEMU's microvm machine, turn by turn, and compares what
//! both take: time from spawn until the agent is ready, and memory beyond the guest's own.
//!
//! Both machines have one CPU, the same RAM, a serial console into a file, and the port that the agent writes when it
//! is ready; the clock of both runs in this process.

mod husk;
pub(crate) mod memory;
pub(crate) mod qemu;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Run;

/// RAM of either guest. An odd size, so that its mapping is told from any other by its length.
pub(crate) const GUEST_MIB: u64 = 250;
/// Well above what an emulated machine takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What both machines run.
#[derive(Debug)]
pub(crate) struct Guest {
    kernel: PathBuf,
    initramfs: PathBuf,
}

impl Guest {
    /// Husk's own.
    pub(crate) fn of(run: &Run) -> Self {
        let lib = run.prefix.join("lib/husk");
        Self { kernel: lib.join("vmlinux"), initramfs: lib.join("initramfs.cpio") }
    }
}

/// One boot, measured from outside.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    /// Spawn of the process to the agent's ready byte.
    ready: Duration,
    memory: memory::Usage,
    /// The monitor's own account, where it has one: step and microseconds since its start.
    steps: Vec<(&'static str, u64)>,
}

/// Prints the comparison and writes bench.json, boot.svg and memory.svg.
pub(crate) fn run(run: &Run) -> Result<()> {
    let guest = Guest::of(run);
    let vmm = run.prefix.join("bin/husk-vmm");

    let (mut husk, mut qemu) = (Vec::new(), Vec::new());
    // Round 0 fills the page cache and is not counted.
    for round in 0..=run.rounds {
        eprintln!("round {round} of {}", run.rounds);
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
    run.write("bench.json", &serde_json::to_string_pretty(&report)?)?;
    run.write("boot.svg", &report.boot_chart())?;
    run.write("memory.svg", &report.memory_chart())
}
