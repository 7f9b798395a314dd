//! `husk supervise`, which nobody types: the detached process that looks after a pod's containers.

use anyhow::Context as _;

use crate::engine::Engine;
use crate::pods::detach::Reporter;
use crate::pods::supervisor;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    pod: String,
    containers: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    // Out of the caller's session: its terminal's signals are not for us.
    rustix::process::setsid().context("cannot start a session")?;
    let reporter = Reporter::from_stdout().context("cannot take standard output")?;
    supervisor::supervise(engine, args.pod, args.containers, reporter).await
}
