//! `husk pod`

mod inspect;
mod ls;
mod update;

use std::time::Duration;

use crate::engine::Engine;
use crate::error::Advise as _;
use crate::output;
use crate::pods::record::PodRecord;
use crate::pods::{lookup, observe, teardown};

/// Look after pods
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ls::Args),
    Inspect(inspect::Args),
    Update(update::Args),
    /// Stop all containers of pods, and then their VMs
    Stop {
        /// Seconds between stop signal and SIGKILL [default: each container's own]
        #[arg(short = 't', long = "time", value_name = "SECONDS")]
        time: Option<u64>,
        #[arg(required = true, value_name = "POD")]
        pods: Vec<String>,
    },
    /// Remove pods with all that they wrote; volumes with names stay
    Rm {
        /// Also running ones, which are killed; and names that there are not
        #[arg(short, long)]
        force: bool,
        /// All pods
        #[arg(short, long, conflicts_with = "pods")]
        all: bool,
        #[arg(required_unless_present = "all", value_name = "POD")]
        pods: Vec<String>,
    },
}

pub(super) async fn run(engine: Engine, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ls(args) => ls::run(engine, args).await,
        Command::Inspect(args) => inspect::run(engine, args).await,
        Command::Update(args) => update::run(engine, args).await,
        Command::Stop { time, pods } => {
            super::for_each(&pods, |name| {
                let engine = engine.clone();
                async move {
                    let pod = find(&engine, &name).await?;
                    teardown::stop_pod(&engine, &pod, time.map(Duration::from_secs)).await?;
                    output::print(&name)
                }
            })
            .await
        }
        Command::Rm { force, all, pods } => {
            // A record that cannot be understood must not stand in the way of removal.
            let names = if all { engine.pods.list()?.into_iter().map(|p| p.id).collect::<Vec<_>>() } else { pods };
            super::for_each(&names, |name| {
                let engine = engine.clone();
                async move { remove(&engine, &name, force).await }
            })
            .await
        }
    }
}

/// The pod that the user means, as it is now.
pub(super) async fn find(engine: &Engine, wanted: &str) -> anyhow::Result<PodRecord> {
    Ok(lookup::pod(&observe::all(engine).await?, wanted)?)
}

async fn remove(engine: &Engine, name: &str, force: bool) -> anyhow::Result<()> {
    // By force: without asking the pod how it is.
    let pods = if force { engine.pods.list()? } else { observe::all(engine).await? };
    let pod = match lookup::pod(&pods, name) {
        Err(lookup::LookupError::Unknown { .. }) if force => return Ok(()),
        found => found?,
    };
    if !force && !pod.phase.is_over() {
        return Err(anyhow::anyhow!("pod {name} is running"))
            .hint(format!("stop it first (`husk pod stop {name}`), or remove it by force (`husk pod rm -f {name}`)"));
    }
    teardown::remove_pod(engine, &pod).await?;
    output::print(&pod.id)
}
