//! `husk stats`

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use husk_client::Stats;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::engine::Engine;
use crate::output::{self, Format, human, table};
use crate::pods::lookup::Found;
use crate::pods::observe;
use crate::pods::vmm::{self, VmmUse};

/// Show what running containers use
///
/// CPU, memory, processes and block devices are the container's, as the guest counts them; network and VMM are those of
/// its whole pod: the VMM's figures are what the host pays for the VM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// All containers, also those that do not run
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Do not clear the screen between two tables
    #[arg(long)]
    no_reset: bool,
    /// Seconds between two tables
    #[arg(short, long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let reset = !args.no_stream && !args.no_reset && args.format == Format::Table && std::io::stdout().is_terminal();
    let mut before: BTreeMap<String, Sample> = BTreeMap::new();
    loop {
        let samples = samples(&engine, &args).await?;
        let rows: Vec<_> =
            samples.iter().map(|sample| Row::of(sample, before.get(&sample.found.container.id))).collect();
        if reset {
            // Clear, and to the upper left corner.
            print!("\x1b[2J\x1b[H");
        }
        match args.format {
            Format::Json => output::json(&rows.iter().map(Row::json).collect::<Vec<_>>())?,
            Format::Table => output::print(&table::render(HEADINGS, rows.iter().map(Row::cells)))?,
        }
        if args.no_stream {
            return Ok(());
        }
        before = samples.into_iter().map(|sample| (sample.found.container.id.clone(), sample)).collect();
        sleep(Duration::from_secs(args.interval)).await;
    }
}

const HEADINGS: [&str; 12] = [
    "ID",
    "NAME",
    "CPU %",
    "MEM USAGE / LIMIT",
    "MEM %",
    "NET IO",
    "BLOCK IO",
    "PIDS",
    "CPU TIME",
    "VMM CPU %",
    "VMM RSS",
    "POD",
];

/// What a container used at one time.
struct Sample {
    found: Found,
    at: Instant,
    /// Absent when it does not run.
    stats: Option<Stats>,
    pod: PodSample,
}

#[derive(Clone, Default)]
struct PodSample {
    vm_memory: u64,
    received: u64,
    sent: u64,
    vmm: Option<VmmUse>,
}

async fn samples(engine: &Engine, args: &Args) -> anyhow::Result<Vec<Sample>> {
    let mut chosen = Vec::new();
    if args.containers.is_empty() {
        for pod in observe::all(engine).await? {
            let shown = pod.containers.iter().filter(|c| args.all || c.state.has_processes());
            chosen.extend(shown.map(|c| Found { pod: pod.clone(), container: c.clone() }));
        }
    }
    for name in &args.containers {
        chosen.push(super::find_container(engine, name).await?);
    }
    let mut samples = Vec::with_capacity(chosen.len());
    let mut pods: BTreeMap<String, PodSample> = BTreeMap::new();
    for found in chosen {
        let (id, pod) = (&found.container.id, &found.pod.id);
        let mut stats = None;
        if found.container.state.has_processes()
            && let Some(shim) = engine.connect(pod).await?
        {
            stats = shim.stats(id).await.ok();
            if !pods.contains_key(pod) {
                pods.insert(pod.clone(), of_pod(&shim, pod).await);
            }
        }
        let pod = pods.get(pod).cloned().unwrap_or_default();
        samples.push(Sample { found, at: Instant::now(), stats, pod });
    }
    Ok(samples)
}

async fn of_pod(shim: &husk_client::Shim, pod: &str) -> PodSample {
    let inspect = shim.inspect().await.ok();
    let network = shim.stats(pod).await.map(|stats| stats.network).unwrap_or_default();
    PodSample {
        vm_memory: inspect.as_ref().map(|i| i.memory_mib << 20).unwrap_or_default(),
        received: network.iter().fold(0, |sum, i| sum.saturating_add(i.received_bytes)),
        sent: network.iter().fold(0, |sum, i| sum.saturating_add(i.sent_bytes)),
        vmm: inspect.and_then(|i| i.vmm_pid).and_then(vmm::usage),
    }
}

/// A container's line, from its sample and the one before.
struct Row<'a> {
    sample: &'a Sample,
    stats: Stats,
    /// Memory that could not be taken back at once, as kubelet counts it.
    memory: u64,
    limit: u64,
    read: u64,
    written: u64,
    cpu: String,
    vmm_cpu: String,
}

impl<'a> Row<'a> {
    fn of(sample: &'a Sample, before: Option<&Sample>) -> Self {
        let stats = sample.stats.clone().unwrap_or_default();
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // Of the first sample, the average since the container's start; as podman has it.
        let since = before.map(|before| us(sample.at.duration_since(before.at)));
        let cpu_before = before.and_then(|b| b.stats.as_ref()).map_or(0, |s| s.cpu_usage_us);
        let started = sample.found.container.state.started;
        let age = started.map_or(0, |at| jiff::Timestamp::now().as_microsecond().saturating_sub(at.as_microsecond()));
        let age = since.unwrap_or_else(|| u64::try_from(age).unwrap_or(0));
        let cpu = human::per_cent(stats.cpu_usage_us.saturating_sub(cpu_before), age);
        let vmm = sample.pod.vmm.unwrap_or_default();
        let vmm_before = before.and_then(|b| b.pod.vmm).map_or(0, |v| v.cpu_ms);
        let vmm_age = since.map_or(vmm.age_ms, |us| us / 1000);
        let vmm_cpu = human::per_cent(vmm.cpu_ms.saturating_sub(vmm_before), vmm_age);
        let sum = |bytes: fn(&husk_client::IoStats) -> u64| stats.io.iter().map(bytes).fold(0, u64::saturating_add);
        Self {
            sample,
            memory: stats.memory_usage.saturating_sub(stats.memory_inactive_file),
            limit: stats.memory_limit.min(sample.pod.vm_memory),
            read: sum(|io| io.read_bytes),
            written: sum(|io| io.write_bytes),
            stats,
            cpu,
            vmm_cpu,
        }
    }

    fn cells(&self) -> [String; 12] {
        let container = &self.sample.found.container;
        let pod = &self.sample.pod;
        let pair = |a: u64, b: u64| format!("{} / {}", human::size(a), human::size(b));
        let (id, name) = (human::short_id(&container.id), container.name.clone());
        let of_pod = self.sample.found.pod.name.clone();
        if self.sample.stats.is_none() {
            let none = || "--".to_owned();
            let zero = || "-- / --".to_owned();
            return [id, name, none(), zero(), none(), zero(), zero(), none(), none(), none(), none(), of_pod];
        }
        [
            id,
            name,
            format!("{}%", self.cpu),
            pair(self.memory, self.limit),
            format!("{}%", human::per_cent(self.memory, self.limit)),
            pair(pod.received, pod.sent),
            pair(self.read, self.written),
            self.stats.pids_current.to_string(),
            human::clock(self.stats.cpu_usage_us / 1_000_000),
            format!("{}%", self.vmm_cpu),
            human::size(pod.vmm.unwrap_or_default().resident_bytes),
            of_pod,
        ]
    }

    /// podman's keys, and the figures themselves under names that tell their unit.
    fn json(&self) -> Value {
        let container = &self.sample.found.container;
        let (pod, stats) = (&self.sample.pod, &self.stats);
        let [_, _, cpu, memory, memory_percent, net, block, pids, time, vmm_cpu, vmm_rss, _] = self.cells();
        json!({
            "id": container.id,
            "name": container.name,
            "pod": self.sample.found.pod.id,
            "pod_name": self.sample.found.pod.name,
            "running": self.sample.stats.is_some(),
            "cpu_percent": cpu,
            "cpu_time": time,
            "mem_usage": memory,
            "mem_percent": memory_percent,
            "net_io": net,
            "block_io": block,
            "pids": pids,
            "vmm_cpu_percent": vmm_cpu,
            "vmm_rss": vmm_rss,
            "cpu_usage_us": stats.cpu_usage_us,
            "memory_bytes": stats.memory_usage,
            "memory_working_set_bytes": self.memory,
            "memory_limit_bytes": self.limit,
            "oom_kills": stats.oom_kill,
            "pids_current": stats.pids_current,
            "pids_limit": (stats.pids_limit != u64::MAX).then_some(stats.pids_limit),
            "block_read_bytes": self.read,
            "block_written_bytes": self.written,
            "net_received_bytes": pod.received,
            "net_sent_bytes": pod.sent,
            "vmm_cpu_ms": pod.vmm.unwrap_or_default().cpu_ms,
            "vmm_resident_bytes": pod.vmm.unwrap_or_default().resident_bytes,
        })
    }
}
