//! What a pod costs that does nothing, by its parts, beside a QEMU microvm machine with the same kernel and agent that
//! does nothing either. Both run at once, and every figure is taken over the same windows of time.

mod guest;
mod process;
mod report;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use husk_tests::fixture::{Husk, manifest_file};
use serde_json::Value;

use crate::Run;
use crate::boot::memory::{self, Usage};
use crate::boot::{GUEST_MIB, Guest, qemu};
use process::{Activity, Watched};

/// How long both are left alone before the first window: what starts with a pod is over by then.
const SETTLE: Duration = Duration::from_secs(30);
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(20);

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: idle}\nspec:\n  containers:\n  \
                   - {name: sleeper, image: busybox, command: [sleep, '100000'], resources: {limits: {memory: 64Mi}}}\n";

/// A process of the host.
#[derive(Debug)]
struct Part {
    name: &'static str,
    memory: Usage,
    windows: Vec<Activity>,
}

/// Prints the figures and writes idle.json.
pub(crate) fn run(run: &Run) -> Result<()> {
    let husk = Husk::new();
    let manifest = manifest_file(POD);
    husk.ok(&["kube", "play", &manifest.to_string_lossy()]);
    let pod = husk.inspect("idle");
    let number = |name: &str| {
        let value = pod.pointer(&format!("/VM/{name}")).and_then(Value::as_u64);
        value.with_context(|| format!("{name} of {pod:#}"))
    };
    let vmm = u32::try_from(number("VmmPid")?)?;
    let pod_mib = number("MemoryMiB")?;
    let peer = qemu::start(&Guest::of(run)).context("booting under QEMU's microvm")?;

    let mut watched = vec![
        ("husk-vmm", vmm, pod_mib),
        ("shim", process::named(husk.run_dir(), "containerd-shim")?, 0),
        ("supervisor", process::named(husk.run_dir(), "supervise")?, 0),
        ("QEMU microvm", peer.pid(), GUEST_MIB),
    ]
    .into_iter()
    .map(|(name, pid, guest_mib)| (name, Watched::new(pid), guest_mib, Vec::new()))
    .collect::<Vec<_>>();
    std::thread::sleep(SETTLE);
    for round in 1..=run.rounds {
        eprintln!("window {round} of {}", run.rounds);
        for (_, process, ..) in &mut watched {
            process.begin()?;
        }
        std::thread::sleep(WINDOW);
        for (_, process, _, windows) in &mut watched {
            windows.push(process.end()?);
        }
    }
    let parts = watched.into_iter().map(|(name, process, guest_mib, windows)| {
        Ok(Part { name, memory: memory::usage(process.pid(), guest_mib)?, windows })
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let memory = husk.sh("idle-sleeper", "cat /proc/meminfo");
    husk.ok(&["kube", "down", &Path::new(&manifest).to_string_lossy()]);
    drop(husk);
    let inside = guest::look(&(guest::agent() + &memory), pod_mib)?;

    let report = report::Report::of(&parts, inside).context("summing up")?;
    println!("{report}");
    run.write("idle.json", &serde_json::to_string_pretty(&report)?)
}
