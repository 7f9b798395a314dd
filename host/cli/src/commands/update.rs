//! `husk update`

use anyhow::{Context as _, bail, ensure};
use oci_spec::runtime::LinuxResources;

use super::run::flags;
use crate::engine::Engine;
use crate::error::Advise as _;
use crate::output;
use crate::pods::lookup::Found;
use crate::pods::plan::RestartPolicy;
use crate::spec::resources::{self, Change};

/// Change the limits of containers while they run
///
/// What is not named stays. The pod's VM keeps its size, so no limit can be above it.
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
        let shim = engine.connect(&found.pod.id).await?.context("its pod is not running")?;
        let vm = shim.inspect().await?;
        fits(change, vm.memory_mib << 20, vm.vcpus)?;
        if state.has_processes() {
            let mut resources = LinuxResources::default();
            change.apply(&mut resources);
            shim.update(id, &resources).await?;
        }
        // What a restart begins with.
        dir.change_spec(id, |spec| {
            if let Some(linux) = spec.linux_mut() {
                let mut resources = linux.resources().clone().unwrap_or_default();
                change.apply(&mut resources);
                linux.set_resources(Some(resources));
            }
        })?;
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

/// A limit above what there is would limit nothing.
fn fits(change: &Change, vm_memory: u64, vcpus: u32) -> anyhow::Result<()> {
    let hint = "a VM keeps the size that it was started with; make the container anew with the larger limit";
    if let Some(memory) = change.memory.filter(|memory| *memory > vm_memory) {
        return Err(anyhow::anyhow!("--memory {memory}: the pod's VM has {vm_memory} bytes")).hint(hint);
    }
    if let Some(milli) = change.cpu_milli.filter(|milli| *milli > u64::from(vcpus).saturating_mul(1000)) {
        let (whole, rest) = (milli / 1000, milli % 1000);
        return Err(anyhow::anyhow!("--cpus {whole}.{rest:03}: the pod's VM has {vcpus}")).hint(hint);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_limited_to_more_than_the_vm_has() {
        let change = Change { memory: Some(2 << 20), cpu_milli: Some(1500), ..Change::default() };
        fits(&change, 2 << 20, 2).unwrap();
        let text = crate::error::report(&fits(&change, 1 << 20, 2).unwrap_err());
        assert!(text.contains("--memory 2097152: the pod's VM has 1048576 bytes\nhint: a VM keeps"), "{text}");
        let text = crate::error::report(&fits(&change, 2 << 20, 1).unwrap_err());
        assert!(text.contains("--cpus 1.500: the pod's VM has 1"), "{text}");
    }
}
