//! `husk kill`

use anyhow::Context as _;

use crate::engine::Engine;
use crate::output;
use crate::pods::record::Status;
use crate::terminal::signals;

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
            let state = found.container.state.status;
            anyhow::ensure!(state == Status::Running, "container {name} is not running but {}", state.as_str());
            let shim = engine.connect(&found.pod.id).await?.context("the container's pod is not running")?;
            shim.kill(&found.container.id, None, signal, false).await?;
            output::print(&name)
        }
    })
    .await
}
