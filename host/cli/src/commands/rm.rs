//! `husk rm`

use crate::engine::Engine;
use crate::error::Advise as _;
use crate::output;
use crate::pods::record::Status;
use crate::pods::{lookup, observe, teardown};

/// Remove containers with all that they wrote
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also running ones, which are killed; and names that there are not
    #[arg(short, long)]
    force: bool,
    /// All containers
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    #[arg(required_unless_present = "all", value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let names = if args.all {
        let pods = observe::all(&engine).await?;
        pods.iter().flat_map(|p| &p.containers).map(|c| c.id.clone()).collect()
    } else {
        args.containers
    };
    super::for_each(&names, |name| {
        let (engine, force) = (engine.clone(), args.force);
        async move { remove(&engine, &name, force).await }
    })
    .await
}

async fn remove(engine: &Engine, name: &str, force: bool) -> anyhow::Result<()> {
    let found = match lookup::container(&observe::all(engine).await?, name) {
        Err(lookup::LookupError::Unknown { .. }) if force => return Ok(()),
        found => found?,
    };
    let status = found.container.state.status;
    // A container whose start has not come yet, in a pod that is on its way, is as good as running.
    let on_its_way = status == Status::Created && !found.pod.phase.is_over();
    if !force && (found.container.state.is_active() || on_its_way) {
        return Err(anyhow::anyhow!("container {name} is {}", status.as_str()))
            .hint(format!("stop it first (`husk stop {name}`), or remove it by force (`husk rm -f {name}`)"));
    }
    if found.pod.private {
        teardown::remove_pod(engine, &found.pod).await?;
    } else {
        teardown::remove_container(engine, &found).await?;
    }
    output::print(name)
}
