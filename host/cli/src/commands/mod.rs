//! The command line: one file per command, with podman's words and flags where podman has them.
//!
//! A command parses its arguments, asks `pods`, `images` or a shim, and prints. It answers the exit code.

mod attach;
mod check;
mod debug;
mod exec;
mod history;
mod image;
mod images;
mod inspect;
mod kill;
mod kube;
mod load;
mod login;
mod logout;
mod logs;
mod pause;
mod pod;
mod ps;
mod pull;
mod rm;
mod rmi;
mod run;
mod save;
mod stats;
mod stop;
mod supervise;
mod system;
mod tag;
mod top;
mod update;
mod version;
mod volume;
mod wait;

use clap::{Parser, Subcommand};

use crate::engine::Engine;
use crate::error::Advise as _;
use crate::pods::lookup::{self, Found};
use crate::pods::observe;
use crate::pods::record::Status;

/// Run containers and Kubernetes pods, each pod in a microVM of its own
#[derive(Debug, Parser)]
#[command(name = "husk", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Tell on standard error what is done
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "Environment:
  HUSK_ROOT  images and volumes (default /var/lib/husk)
  HUSK_RUN   running pods (default /run/husk)

Exit codes of run, exec and attach: the command's own; 125 husk failed, 126 the command cannot be executed,
127 it is not in the image, 128+N signal N ended it.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<run::Args>),
    Exec(exec::Args),
    Attach(attach::Args),
    Debug(debug::Args),
    Ps(ps::Args),
    Logs(logs::Args),
    Inspect(inspect::Args),
    Wait(wait::Args),
    Stop(stop::Args),
    Kill(kill::Args),
    Pause(pause::PauseArgs),
    Unpause(pause::UnpauseArgs),
    Top(top::Args),
    Stats(stats::Args),
    Update(update::Args),
    Rm(rm::Args),
    #[command(subcommand)]
    Pod(pod::Command),
    #[command(subcommand)]
    Kube(kube::Command),
    Pull(pull::Args),
    Load(load::Args),
    Login(login::Args),
    Logout(logout::Args),
    Images(images::Args),
    Rmi(rmi::Args),
    Tag(tag::Args),
    Save(save::Args),
    History(history::Args),
    #[command(subcommand)]
    Image(image::Command),
    #[command(subcommand)]
    System(system::Command),
    #[command(subcommand)]
    Volume(volume::Command),
    Check(check::Args),
    Version(version::Args),
    #[command(hide = true)]
    Supervise(supervise::Args),
}

/// Runs a command and answers the exit code.
pub(crate) async fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        // These need nothing of pods and images.
        Command::Check(args) => check::run(args).await,
        Command::Version(args) => version::run(args),
        Command::Login(args) => login::run(args).await.map(|()| 0),
        Command::Logout(args) => logout::run(&args).map(|()| 0),
        command => with_engine(command, Engine::open()?).await,
    }
}

async fn with_engine(command: Command, engine: Engine) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => return run::run(engine, *args).await,
        Command::Exec(args) => return exec::run(engine, args).await,
        Command::Attach(args) => return attach::run(engine, args).await,
        Command::Debug(args) => return debug::run(engine, args).await,
        Command::Supervise(args) => supervise::run(engine, args).await?,
        Command::Ps(args) => ps::run(engine, args).await?,
        Command::Logs(args) => logs::run(engine, args).await?,
        Command::Inspect(args) => inspect::run(engine, args).await?,
        Command::Wait(args) => wait::run(engine, args).await?,
        Command::Stop(args) => stop::run(engine, args).await?,
        Command::Kill(args) => kill::run(engine, args).await?,
        Command::Pause(args) => pause::pause(engine, args).await?,
        Command::Unpause(args) => pause::unpause(engine, args).await?,
        Command::Top(args) => top::run(engine, args).await?,
        Command::Stats(args) => stats::run(engine, args).await?,
        Command::Update(args) => update::run(engine, args).await?,
        Command::Rm(args) => rm::run(engine, args).await?,
        Command::Pod(command) => pod::run(engine, command).await?,
        Command::Kube(command) => return kube::run(engine, command).await,
        Command::Pull(args) => pull::run(engine, args).await?,
        Command::Load(args) => load::run(engine, args).await?,
        Command::Images(args) => images::run(engine, args)?,
        Command::Rmi(args) => rmi::run(engine, args)?,
        Command::Tag(args) => tag::run(engine, args)?,
        Command::Save(args) => save::run(engine, args)?,
        Command::History(args) => history::run(engine, args)?,
        Command::Image(command) => image::run(engine, command).await?,
        Command::System(command) => system::run(engine, command).await?,
        Command::Volume(command) => volume::run(engine, command).await?,
        Command::Check(_) | Command::Version(_) | Command::Login(_) | Command::Logout(_) => {}
    }
    Ok(0)
}

/// The container that the user means, as it is now.
async fn find_container(engine: &Engine, wanted: &str) -> anyhow::Result<Found> {
    let pods = observe::all(engine).await?;
    Ok(lookup::container(&pods, wanted)?)
}

/// Refuses a container whose first process cannot be spoken to.
fn must_run(found: &Found, name: &str) -> anyhow::Result<()> {
    match found.container.state.status {
        Status::Running => Ok(()),
        Status::Paused => Err(anyhow::anyhow!("container {name} is not running but paused"))
            .hint(format!("let it go on first: `husk unpause {name}`")),
        status => Err(anyhow::anyhow!("container {name} is not running but {}", status.as_str()))
            .hint("`husk ps` shows what runs; `husk logs` what it wrote"),
    }
}

/// Does something to each of several things; goes on after a failure and tells the last one.
async fn for_each<F>(names: &[String], mut act: impl FnMut(String) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut failed = None;
    for name in names {
        if let Err(error) = act(name.clone()).await
            && let Some(earlier) = failed.replace(error)
        {
            eprintln!("{}", crate::error::report(&earlier));
        }
    }
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
