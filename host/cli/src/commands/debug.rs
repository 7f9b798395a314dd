//! `husk debug`

use crate::engine::Engine;
use crate::error::Advise as _;
use crate::output::progress;
use crate::pods::plan::{CapabilityPlan, ContainerPlan, Kind, Limits, PidPlan, PullPolicy};
use crate::pods::record::{ContainerRecord, PodRecord, Status};
use crate::pods::{ids, lookup, observe, prepare};
use crate::spec;
use crate::terminal::attach;

use super::run::flags;
use super::run::foreground::{self, Ready};

/// Look into a running container or pod from a temporary container with tools of its own
///
/// The temporary container is in the same pod: it has the pod's network, and sees and traces the processes of the
/// container that is named, whose files are below /proc/1/root. It is removed when it ends.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Image of the temporary container
    #[arg(long, default_value = "busybox")]
    image: String,
    /// Container of the pod whose processes it shall see [default: the one that is named; of a pod none]
    #[arg(long, value_name = "CONTAINER")]
    target: Option<String>,
    /// Name of the temporary container [default: debugger- and something random]
    #[arg(long)]
    name: Option<String>,
    /// Set an environment variable; NAME alone takes the value from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// When to ask the registry
    #[arg(long, value_enum, default_value_t)]
    pull: PullPolicy,
    /// No progress of pulls
    #[arg(short, long)]
    quiet: bool,
    /// A running container, or a running pod
    #[arg(value_name = "CONTAINER|POD")]
    what: String,
    /// [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<u8> {
    if args.tty && args.interactive && !attach::can_be_terminal() {
        return Err(anyhow::anyhow!("-t needs a terminal, and standard input is none")).hint("leave -t away");
    }
    foreground::attend(&engine, prepare(&engine, &args)).await
}

async fn prepare(engine: &Engine, args: &Args) -> anyhow::Result<Ready> {
    let (pod, target) = place(&observe::all(engine).await?, args)?;
    let mut plan = plan(args, target.as_ref())?;
    // In the same user namespace, or its root would be a stranger to the others' processes.
    if let Some(other) = target.as_ref().or(pod.containers.first()) {
        plan.users = spec::users_of(&engine.pods.open(&pod.id).spec(&other.id)?);
    }
    let progress = progress::of_images(args.quiet);
    let (container, leases) = prepare::into_pod(engine, &pod, &plan, progress).await?;
    Ok(Ready::in_pod(engine, pod.id, container, leases))
}

/// The pod, and the container in it whose processes are wanted.
fn place(pods: &[PodRecord], args: &Args) -> anyhow::Result<(PodRecord, Option<ContainerRecord>)> {
    let (pod, mut target) = match lookup::container(pods, &args.what) {
        Ok(found) => (found.pod, Some(found.container)),
        Err(lookup::LookupError::Unknown { .. }) => {
            let pod = lookup::pod(pods, &args.what);
            (pod.map_err(|_| anyhow::anyhow!("there is no container or pod \"{}\"", args.what)).hint(LIST)?, None)
        }
        Err(error) => return Err(error.into()),
    };
    if pod.phase.is_over() {
        return Err(anyhow::anyhow!("pod {} has ended", pod.name)).hint(LIST);
    }
    if let Some(wanted) = &args.target {
        let named = |container: &&ContainerRecord| container.short_name == *wanted || container.name == *wanted;
        let Some(found) = pod.containers.iter().find(named) else {
            let names: Vec<_> = pod.containers.iter().map(|container| container.short_name.as_str()).collect();
            return Err(anyhow::anyhow!("--target {wanted}: pod {} has no such container", pod.name))
                .hint(format!("it has {}", names.join(", ")));
        };
        target = Some(found.clone());
    }
    if let Some(target) = &target
        && !target.state.has_processes()
    {
        let status = target.state.status.as_str();
        return Err(anyhow::anyhow!("container {} is not running but {status}", target.name)).hint(LIST);
    }
    Ok((pod, target))
}

const LIST: &str = "`husk ps` shows the containers that run, `husk pod ls` the pods";

fn plan(args: &Args, target: Option<&ContainerRecord>) -> anyhow::Result<ContainerPlan> {
    let name = args.name.clone().unwrap_or_else(|| format!("debugger-{}", ids::suffix()));
    if !flags::is_name(&name) {
        return Err(anyhow::anyhow!("--name {name}: it is no name: {}", flags::NAME_RULE)).hint("choose another");
    }
    let pid = target.filter(|target| target.state.status != Status::Created).and_then(|target| target.state.pid);
    Ok(ContainerPlan {
        kind: Kind::Ephemeral,
        image: args.image.clone(),
        pull: args.pull,
        args: (!args.command.is_empty()).then(|| args.command.clone()),
        env: flags::env::<&str>(&args.env, &[])?,
        pids: pid.map_or(PidPlan::Own, PidPlan::Task),
        // As in kubectl's profile "general": to look into processes is what it is for.
        capabilities: CapabilityPlan { add: vec!["SYS_PTRACE".to_owned()], drop: Vec::new() },
        limits: Limits { pids: Some(flags::PIDS_LIMIT), ..Limits::default() },
        terminal: args.tty,
        stdin: args.interactive,
        stop_timeout: flags::STOP_SECONDS,
        auto_remove: true,
        name,
        ..ContainerPlan::default()
    })
}
