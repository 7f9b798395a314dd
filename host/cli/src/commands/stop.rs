//! `husk stop`

use std::time::Duration;

use crate::engine::Engine;
use crate::output;
use crate::pods::teardown;

/// Stop containers: their stop signal, and SIGKILL when they do not end in time
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds between the two signals [default: the container's own, 10]
    #[arg(short = 't', long = "time", visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u64>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    super::for_each(&args.containers, |name| {
        let (engine, time) = (engine.clone(), args.time);
        async move {
            let found = super::find_container(&engine, &name).await?;
            let grace = Duration::from_secs(time.unwrap_or(found.container.stop_timeout));
            teardown::stop_container(&engine, &found, grace).await?;
            output::print(&name)
        }
    })
    .await
}
