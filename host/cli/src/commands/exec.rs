//! `husk exec`

use anyhow::Context as _;
use husk_client::{Fifos, TaskError, Wanted};

use super::run::flags;
use crate::engine::Engine;
use crate::error::{self, Advise as _};
use crate::output;
use crate::pods::ids;
use crate::pods::lookup::Found;
use crate::pods::runner::{self, ExecFailure};
use crate::spec::{self, ExecInputs};
use crate::terminal::attach::{self, Process};
use crate::terminal::signals::Forwarded;

/// Run a further command in a running container
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not wait for it
    #[arg(short, long)]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; NAME alone takes the value from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the environment variables of a file, NAME=VALUE on each line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<std::path::PathBuf>,
    /// As this user, by names or numbers of the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// With all capabilities but two; the filter of system calls and what is hidden of /proc and /sys stay
    #[arg(long)]
    privileged: bool,
    container: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<u8> {
    let found = super::find_container(&engine, &args.container).await?;
    super::must_run(&found, &args.container)?;
    let shim = engine.connect(&found.pod.id).await?.context("the container's pod is not running")?;
    let terminal = args.tty;
    if terminal && args.interactive && !attach::can_be_terminal() {
        return Err(anyhow::anyhow!("-t needs a terminal, and standard input is none")).hint("leave -t away");
    }
    let process = process(&engine, &found, &args)?;
    let exec = ids::exec();
    let id = &found.container.id;
    if args.detach {
        shim.exec(id, &exec, &process, husk_client::Stdio { terminal, ..Default::default() }).await?;
        started(shim.start_exec(id, &exec).await, &args)?;
        output::print(&exec)?;
        return Ok(0);
    }
    let signals = Forwarded::catch().context("cannot catch signals")?;
    let wanted = Wanted { stdin: args.interactive, stdout: true, stderr: true, terminal };
    let dir = engine.pods.open(&found.pod.id);
    let fifos = Fifos::create(&dir.fifos(), &exec, wanted).context("cannot make FIFOs for the command's streams")?;
    shim.exec(id, &exec, &process, fifos.stdio()).await?;
    // Waited for from before its start, so that not even the shortest command is missed.
    let (waiter, waited, execution) = (shim.clone(), id.clone(), exec.clone());
    if let Err(error) = started(shim.start_exec(id, &exec).await, &args) {
        let _ = shim.delete(id, Some(&exec)).await;
        return Err(error);
    }
    let exit = tokio::spawn(async move { waiter.wait(&waited, Some(&execution)).await });
    let ended = attach::run(Process { shim: &shim, id, exec: Some(&exec), terminal }, fifos, signals, async {
        exit.await.map_err(|e| TaskError::Internal(e.to_string()))?
    })
    .await;
    let _ = shim.delete(id, Some(&exec)).await;
    let code = ended.context("the command's end is not known")?.code;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn process(engine: &Engine, found: &Found, args: &Args) -> anyhow::Result<oci_spec::runtime::Process> {
    let dir = engine.pods.open(&found.pod.id);
    let spec = dir.spec(&found.container.id)?;
    let first = spec.process().as_ref().context("the container's bundle has no process")?;
    let user = match &args.user {
        None => None,
        Some(user) => {
            let image = engine.store()?.get(&found.container.image_id)?;
            let user = image.resolve_user(user)?;
            Some((user.uid, user.gid, user.additional_gids, user.home))
        }
    };
    let inputs = ExecInputs {
        args: args.command.clone(),
        env: flags::env(&args.env, &args.env_file)?,
        workdir: args.workdir.clone(),
        terminal: args.tty,
        privileged: args.privileged,
        user,
    };
    Ok(spec::exec_process(&found.container.name, first, inputs)?)
}

/// Exit codes 126 and 127 when the command is at fault.
fn started(result: Result<u32, TaskError>, args: &Args) -> anyhow::Result<u32> {
    result.or_else(|error| match runner::exec_failure(&error.to_string()) {
        Some((ExecFailure::NotFound, cause)) => Err(anyhow::anyhow!(cause)).exit_code(error::exit::NOT_FOUND),
        Some((ExecFailure::CannotExecute, cause)) => Err(anyhow::anyhow!(cause)).exit_code(error::exit::CANNOT_EXECUTE),
        None => {
            let command = args.command.first().map_or("", String::as_str);
            Err(anyhow::Error::new(error).context(format!("cannot run {command}")))
        }
    })
}
