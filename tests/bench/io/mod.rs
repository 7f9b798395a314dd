//! Runs the same workloads on the devices of husk-vmm and on those of QEMU's microvm machine, turn by turn: virtio-fs
//! (beside virtiofsd), a scratch disk, an EROFS image, and the network on a tap (beside QEMU with and without vhost, and
//! beside runc on the veth itself).
//!
//! The guest (`tests/bench-guest`) is the same program everywhere and keeps the time; this process counts the monitors'
//! CPU time, and serves the network's other end.

mod cpu;
mod husk;
mod network;
mod qemu;
mod report;
mod runc;
mod server;
mod stage;
mod transcript;

use anyhow::{Context, Result};

use crate::Run;
use stage::Stage;
use transcript::Phase;

/// RAM of either guest.
const GUEST_MIB: u64 = 256;

/// Who runs the workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Husk,
    Qemu,
    /// With the network's data path in the host's kernel; only for the network's rows.
    QemuVhost,
    /// Without a VM, in the network namespace; only for the network's rows.
    Runc,
}

impl Subject {
    const ALL: [Self; 4] = [Self::Husk, Self::Qemu, Self::QemuVhost, Self::Runc];

    fn name(self) -> &'static str {
        match self {
            Self::Husk => "husk-vmm",
            Self::Qemu => "QEMU",
            Self::QemuVhost => "QEMU, vhost-net",
            Self::Runc => "runc on veth",
        }
    }

    fn perform(self, stage: &Stage) -> Result<Vec<Phase>> {
        match self {
            Self::Husk => husk::perform(stage),
            Self::Qemu => qemu::perform(stage, false),
            Self::QemuVhost => qemu::perform(stage, true),
            Self::Runc => runc::perform(stage),
        }
    }
}

/// Prints the comparison and writes it to io.md, the figures to io.json, and a chart per kind of device.
pub(crate) fn run(run: &Run) -> Result<()> {
    let stage = Stage::set(run)?;
    let mut report = report::Report::default();
    // Round 0 fills the page cache and is not counted.
    for round in 0..=run.rounds {
        for subject in Subject::ALL {
            if subject == Subject::QemuVhost && !stage.has_vhost() {
                continue;
            }
            eprintln!("round {round} of {}: {}", run.rounds, subject.name());
            let phases = subject.perform(&stage).with_context(|| format!("workloads under {}", subject.name()))?;
            if round > 0 {
                report.add(subject, phases);
            }
        }
        // After each round, so that a box that stands still takes only its last one along.
        if round > 0 {
            report.write(run)?;
        }
    }
    println!("{report}");
    Ok(())
}
