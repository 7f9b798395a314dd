//! `husk pod update`

use anyhow::{Context as _, bail, ensure};

use crate::commands::run::flags;
use crate::engine::Engine;
use crate::output;
use crate::pods::record::PodRecord;
use crate::pods::size::PodSize;
use crate::spec::resources;

/// Make pods larger or smaller while they run
///
/// What is not named stays. Of what is named the pod has so much from now on, whatever limits its containers have.
/// Memory that the pod was started with stays with its VM; the containers' share of it shrinks all the same.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Memory of all containers together, e.g. 512m or 2g
    #[arg(short, long, value_name = "SIZE", value_parser = flags::bytes)]
    memory: Option<u64>,
    /// CPUs of all containers together, e.g. 1.5
    #[arg(long, value_name = "NUMBER", value_parser = flags::cpus)]
    cpus: Option<u64>,
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let (memory, cpus) = (args.memory, args.cpus);
    if memory.is_none() && cpus.is_none() {
        bail!("nothing to change: give a limit, such as --memory 1g");
    }
    if let Some(memory) = memory {
        ensure!(memory >= resources::MIN_MEMORY, "--memory: {memory} bytes are too little; the least is 4m");
    }
    super::super::for_each(&args.pods, |name| {
        let engine = engine.clone();
        async move {
            let pod = super::find(&engine, &name).await?;
            update(&engine, pod, memory, cpus).await.with_context(|| format!("pod {name}"))?;
            output::print(&name)
        }
    })
    .await
}

async fn update(engine: &Engine, mut pod: PodRecord, memory: Option<u64>, cpus: Option<u64>) -> anyhow::Result<()> {
    let shim = engine.connect(&pod.id).await?.context("it is not running")?;
    let dir = engine.pods.open(&pod.id);
    pod.own_size.memory = memory.or(pod.own_size.memory);
    pod.own_size.cpu_milli = cpus.or(pod.own_size.cpu_milli);
    // Also where nothing differs: memory that the guest could not free before it may be able to free now.
    PodSize::of(&dir, &pod, None)?.apply(&dir, &shim, None).await?;
    dir.update(|record| record.own_size = pod.own_size)?;
    Ok(())
}
