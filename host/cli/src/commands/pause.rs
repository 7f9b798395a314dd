//! `husk pause`, `husk unpause`

use anyhow::Context as _;

use crate::engine::Engine;
use crate::output;
use crate::pods::lookup::Found;
use crate::pods::observe;
use crate::pods::record::Status;

/// Stop all processes of containers where they stand
#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    /// All containers that run
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    #[arg(required_unless_present = "all", value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Let the processes of paused containers go on
#[derive(Debug, clap::Args)]
pub(crate) struct UnpauseArgs {
    /// All containers that are paused
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    #[arg(required_unless_present = "all", value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) async fn pause(engine: Engine, args: PauseArgs) -> anyhow::Result<()> {
    let names = names(&engine, args.all, args.containers, Status::Running).await?;
    change(&engine, &names, Status::Running, Status::Paused).await
}

pub(super) async fn unpause(engine: Engine, args: UnpauseArgs) -> anyhow::Result<()> {
    let names = names(&engine, args.all, args.containers, Status::Paused).await?;
    change(&engine, &names, Status::Paused, Status::Running).await
}

async fn names(engine: &Engine, all: bool, given: Vec<String>, from: Status) -> anyhow::Result<Vec<String>> {
    if !all {
        return Ok(given);
    }
    let pods = observe::all(engine).await?;
    let containers = pods.iter().flat_map(|pod| &pod.containers);
    Ok(containers.filter(|c| c.state.status == from).map(|c| c.id.clone()).collect())
}

async fn change(engine: &Engine, names: &[String], from: Status, to: Status) -> anyhow::Result<()> {
    super::for_each(names, |name| {
        let engine = engine.clone();
        async move {
            let found = super::find_container(&engine, &name).await?;
            let status = found.container.state.status;
            anyhow::ensure!(status == from, "container {name} is not {} but {}", from.as_str(), status.as_str());
            let shim = engine.connect(&found.pod.id).await?.context("the container's pod is not running")?;
            match to {
                Status::Paused => shim.pause(&found.container.id).await?,
                _ => shim.resume(&found.container.id).await?,
            }
            note(&engine, &found, from, to)?;
            output::print(&name)
        }
    })
    .await
}

/// Puts it on record, unless the container has ended meanwhile.
pub(super) fn note(engine: &Engine, found: &Found, from: Status, to: Status) -> anyhow::Result<()> {
    engine.pods.open(&found.pod.id).update(|record| {
        if let Some(container) = record.container_mut(&found.container.id)
            && container.state.status == from
        {
            container.state.status = to;
        }
    })?;
    Ok(())
}
