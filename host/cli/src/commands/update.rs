//! `husk update`

use anyhow::{Context as _, bail, ensure};
use oci_spec::runtime::LinuxResources;

use super::run::flags;
use crate::engine::Engine;
use crate::error::Advise as _;
use crate::output;
use crate::pods::lookup::Found;
use crate::pods::plan::RestartPolicy;
use crate::pods::record::OwnSize;
use crate::pods::size::{self, PodSize};
use crate::spec::resources::{self, Change};

/// Change the limits of containers while they run
///
/// What is not named stays. The pod grows and shrinks with its containers, unless it was given a size as a whole: then no
/// limit can be above that.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Limit of memory, e.g. 128m or 1g
    #[arg(short, long, value_name = "SIZE", value_parser = flags::bytes)]
    memory: Option<u64>,
    /// Memory that is taken last when there is too little, e.g. 64m
    #[arg(long, value_name = "SIZE", value_parser = flags::bytes)]
    memory_reservation: Option<u64>,
    /// Limit of CPUs, e.g. 0.5
    #[arg(long, value_name = "NUMBER", value_parser = flags::cpus, conflicts_with_all = ["cpu_quota", "cpu_period"])]
    cpus: Option<u64>,
    /// Microseconds of CPU time in a period; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Length of a period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Relative weight beside others, 2 to 262144; 1024 is one CPU's
    #[arg(short = 'c', long, value_name = "SHARES", value_parser = clap::value_parser!(u64).range(2..=262_144))]
    cpu_shares: Option<u64>,
    /// CPUs of the VM to run on, e.g. 0-1
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Whether it is started again when it ends
    #[arg(long, value_enum, value_name = "POLICY", ignore_case = true)]
    restart: Option<RestartPolicy>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let change = change(&args)?;
    let names = args.containers.clone();
    super::for_each(&names, |name| {
        let (engine, change, restart) = (engine.clone(), change.clone(), args.restart);
        async move {
            let found = super::find_container(&engine, &name).await?;
            update(&engine, &found, &change, restart).await.with_context(|| format!("container {name}"))?;
            output::print(&name)
        }
    })
    .await
}

fn change(args: &Args) -> anyhow::Result<Change> {
    if let Some(memory) = args.memory {
        ensure!(memory >= resources::MIN_MEMORY, "--memory: {memory} bytes are too little; the least is 4m");
    }
    if let Some(limit) = args.pids_limit {
        ensure!(limit != 0 && limit >= -1, "--pids-limit must be -1 or more than 0");
    }
    let change = Change {
        memory: args.memory,
        memory_reservation: args.memory_reservation,
        cpu_milli: args.cpus,
        cpu_quota: args.cpu_quota,
        cpu_period: args.cpu_period,
        cpu_shares: args.cpu_shares,
        cpuset: args.cpuset_cpus.clone(),
        pids: args.pids_limit,
    };
    if change == Change::default() && args.restart.is_none() {
        bail!("nothing to change: give a limit, such as --memory 256m");
    }
    Ok(change)
}

async fn update(engine: &Engine, found: &Found, change: &Change, restart: Option<RestartPolicy>) -> anyhow::Result<()> {
    let state = &found.container.state;
    ensure!(state.is_active(), "it does not run but is {}", state.status.as_str());
    let dir = engine.pods.open(&found.pod.id);
    let id = &found.container.id;
    if *change != Change::default() {
        limit(engine, found, change).await?;
    }
    if let Some(policy) = restart {
        dir.update(|record| {
            if let Some(container) = record.container_mut(id) {
                container.restart = policy;
            }
        })?;
    }
    Ok(())
}

/// Changes the limits of a container and the size of its pod: first the pod grows, where it has to, then the container
/// changes, then the pod shrinks.
async fn limit(engine: &Engine, found: &Found, change: &Change) -> anyhow::Result<()> {
    let (id, dir) = (&found.container.id, engine.pods.open(&found.pod.id));
    let shim = engine.connect(&found.pod.id).await?.context("its pod is not running")?;
    fits(change, found.pod.own_size)?;
    let mut limits = size::limits(&dir, id)?;
    let before = PodSize::of(&dir, &found.pod, None)?;
    change.apply(&mut limits);
    let after = PodSize::of(&dir, &found.pod, Some((id, &limits)))?;
    let both = before.with(after);
    both.apply(&dir, &shim, Some(before)).await?;
    if found.container.state.has_processes() {
        let mut resources = LinuxResources::default();
        change.apply(&mut resources);
        if let Err(error) = shim.update(id, &resources).await {
            before.apply(&dir, &shim, Some(both)).await?;
            return Err(error.into());
        }
    }
    // What a restart begins with.
    dir.change_spec(id, |spec| {
        if let Some(linux) = spec.linux_mut() {
            linux.set_resources(Some(limits));
        }
    })?;
    let resized = after.apply(&dir, &shim, Some(both)).await;
    resized.context("the container has its new limits, its pod keeps its size")
}

/// A limit above the pod's would limit nothing.
fn fits(change: &Change, pod: OwnSize) -> anyhow::Result<()> {
    let hint = "the pod was given this size as a whole; `husk pod update` gives it another";
    if let (Some(memory), Some(own)) = (change.memory, pod.memory)
        && memory > own
    {
        return Err(anyhow::anyhow!("--memory {memory}: its pod has {own} bytes")).hint(hint);
    }
    if let (Some(milli), Some(own)) = (change.cpu_milli, pod.cpu_milli)
        && milli > own
    {
        let cpus = |milli: u64| format!("{}.{:03}", milli / 1000, milli % 1000);
        return Err(anyhow::anyhow!("--cpus {}: its pod has {}", cpus(milli), cpus(own))).hint(hint);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_limited_to_more_than_its_pod_was_given() {
        let change = Change { memory: Some(2 << 20), cpu_milli: Some(1500), ..Change::default() };
        fits(&change, OwnSize::default()).unwrap();
        fits(&change, OwnSize { memory: Some(2 << 20), cpu_milli: Some(1500) }).unwrap();
        let text =
            crate::error::report(&fits(&change, OwnSize { memory: Some(1 << 20), cpu_milli: None }).unwrap_err());
        assert!(text.contains("--memory 2097152: its pod has 1048576 bytes\nhint: the pod was given"), "{text}");
        let text = crate::error::report(&fits(&change, OwnSize { memory: None, cpu_milli: Some(1000) }).unwrap_err());
        assert!(text.contains("--cpus 1.500: its pod has 1.000"), "{text}");
    }
}
