//! `husk attach`

use anyhow::Context as _;
use husk_client::{Fifos, TaskError, Wanted};

use crate::engine::Engine;
use crate::error::Advise as _;
use crate::pods::ids;
use crate::terminal::attach::{self, Process};
use crate::terminal::signals::Forwarded;

/// Join a running container's input and output until it ends; its exit code is this command's
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Its output alone
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to it; without that they end this command alone
    #[arg(
        long,
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    sig_proxy: bool,
    container: String,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<u8> {
    let found = super::find_container(&engine, &args.container).await?;
    super::must_run(&found, &args.container)?;
    let shim = engine.connect(&found.pod.id).await?.context("the container's pod is not running")?;
    let container = &found.container;
    let stdin = container.stdin && !args.no_stdin;
    // Who only watches neither sets the terminal's size nor needs the keys of his own.
    let terminal = container.terminal && stdin;
    if terminal && !attach::can_be_terminal() {
        return Err(anyhow::anyhow!("container {} has a terminal, and standard input is none", args.container))
            .hint("`--no-stdin` shows its output alone");
    }
    let signals = match args.sig_proxy {
        true => Forwarded::catch().context("cannot catch signals")?,
        false => Forwarded::none(),
    };
    let wanted = Wanted { stdin, stdout: true, stderr: true, terminal: container.terminal };
    let dir = engine.pods.open(&found.pod.id);
    let fifos = Fifos::create(&dir.fifos(), &ids::exec(), wanted).context("cannot make FIFOs for the streams")?;
    // Waited for from before, so that its end is known even when the container goes with it.
    let (waiter, waited) = (shim.clone(), container.id.clone());
    let exit = tokio::spawn(async move { waiter.wait(&waited, None).await });
    match shim.attach(&container.id, &fifos.stdio(), false).await {
        Err(error @ TaskError::FailedPrecondition(_)) if stdin => {
            return Err(anyhow::Error::new(error))
                .hint("of a container that `husk run` waits for, use `--no-stdin`: its input is that command's");
        }
        attached => attached?,
    }
    let ended = attach::run(Process { shim: &shim, id: &container.id, exec: None, terminal }, fifos, signals, async {
        exit.await.map_err(|e| TaskError::Internal(e.to_string()))?
    })
    .await;
    let code = ended.context("the container's end is not known")?.code;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
