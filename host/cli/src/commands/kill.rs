//! `husk kill`

use anyhow::Context as _;

use super::pause;
use crate::engine::Engine;
use crate::output;
use crate::pods::record::Status;
use crate::pods::teardown;
use husk_spec::signals;

/// Send a signal to containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or number
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let signal = signals::parse(&args.signal)?;
    super::for_each(&args.containers, |name| {
        let engine = engine.clone();
        async move {
            let found = super::find_container(&engine, &name).await?;
            let state = &found.container.state;
            anyhow::ensure!(state.has_processes(), "container {name} is not running but {}", state.status.as_str());
            let shim = engine.connect(&found.pod.id).await?.context("the container's pod is not running")?;
            shim.kill(&found.container.id, None, signal, false).await?;
            if state.status == Status::Paused {
                teardown::thaw(&shim, &found.container.id).await;
                pause::note(&engine, &found, Status::Paused, Status::Running)?;
            }
            output::print(&name)
        }
    })
    .await
}
