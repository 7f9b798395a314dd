//! `husk wait`

use std::time::Duration;

use tokio::time::sleep;

use crate::engine::Engine;
use crate::output;
use crate::pods::lookup::{self, LookupError};
use crate::pods::observe;
use crate::pods::record::Status;

/// Wait until containers have ended for good and print their exit codes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    for name in &args.containers {
        output::print(&wait(&engine, name).await?.to_string())?;
    }
    Ok(())
}

async fn wait(engine: &Engine, name: &str) -> anyhow::Result<u32> {
    let id = super::find_container(engine, name).await?.container.id;
    // Of the last run that was seen: a container of `--rm` is gone as soon as it has ended.
    let mut last = None;
    loop {
        // By its id: a name could be given anew meanwhile.
        let found = match lookup::container(&observe::all(engine).await?, &id) {
            Err(LookupError::Unknown { .. }) if last.is_some() => return Ok(last.unwrap_or_default()),
            found => found?,
        };
        let state = &found.container.state;
        match state.status {
            Status::Exited => return Ok(state.exit_code.unwrap_or_default()),
            Status::Running if let Some(shim) = engine.connect(&found.pod.id).await? => {
                last = shim.wait(&id, None).await.ok().map(|exit| exit.code).or(last);
            }
            _ => {}
        }
        // Whoever looks after it is about to say whether this was its last run.
        sleep(Duration::from_millis(50)).await;
    }
}
