//! `husk run`

mod devices;
pub(crate) mod flags;
pub(super) mod foreground;
mod mounts;
mod plan;
mod security;
mod users;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use husk_image::{Lease, Progress};

use crate::engine::Engine;
use crate::error::Advise as _;
use crate::network::flags::NetworkArgs;
use crate::output::{self, progress};
use crate::pods::detach::{self, Report};
use crate::pods::plan::{ContainerPlan, PullPolicy, RestartPolicy};
use crate::pods::record::{ContainerRecord, PodRecord};
use crate::pods::{lookup, observe, prepare, size};
use crate::terminal::attach;

/// Run a command in a new container, in a new pod unless --pod says otherwise
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Print the container's id and do not wait for it
    #[arg(short, long)]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Name of the container [default: a random one]
    #[arg(long)]
    name: Option<String>,
    /// In this running pod; new:NAME makes one that stays when the container has ended
    #[arg(long, value_name = "[new:]POD")]
    pod: Option<String>,
    /// Limit of memory, e.g. 128m or 1g
    #[arg(short, long, value_name = "BYTES", value_parser = flags::bytes)]
    memory: Option<u64>,
    /// Limit of CPU time, e.g. 0.5
    #[arg(long, value_name = "NUMBER", value_parser = flags::cpus, allow_negative_numbers = true)]
    cpus: Option<u64>,
    /// Limit of processes and threads; -1 for none
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = flags::PIDS_LIMIT)]
    pids_limit: i64,
    /// Set an environment variable; NAME alone takes the value from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Environment variables from a file, one on a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Mount something of the host, or a named volume, which is made when there is none
    #[arg(short, long, value_name = "HOST|NAME:/PATH[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount anything: type=bind, volume, tmpfs or image, then src=, dst=, ro, subpath= and others
    #[arg(long, value_name = "KEY=VALUE,...")]
    mount: Vec<String>,
    /// Mount a file system in memory
    #[arg(long, value_name = "/PATH[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Give a block device of the host as a disk
    #[arg(long, value_name = "/dev/HOST[:/dev/CONTAINER][:rwm]")]
    device: Vec<String>,
    /// Size of /dev/shm, which the pod's containers share
    #[arg(long, value_name = "BYTES", value_parser = flags::bytes)]
    shm_size: Option<u64>,
    /// The pod's cgroup goes into this one of the host: a path, or a slice of systemd such as machine.slice
    #[arg(long, value_name = "CGROUP", value_parser = flags::cgroup_parent)]
    cgroup_parent: Option<String>,
    /// Working directory [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// As this user, by names or numbers of the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Command before the arguments [default: the image's]
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// User namespace: host (none) or auto [default: host]
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Ids of its users in the guest; those of groups, too, unless --gidmap says otherwise
    #[arg(long, value_name = "CONTAINER:GUEST[:SIZE]")]
    uidmap: Vec<String>,
    /// Ids of its groups in the guest
    #[arg(long, value_name = "CONTAINER:GUEST[:SIZE]")]
    gidmap: Vec<String>,
    /// Host name of the new pod [default: the beginning of its name]
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// NIS domain name of the new pod
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// The root file system cannot be written
    #[arg(long)]
    read_only: bool,
    /// Set a resource limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// All capabilities but two, no seccomp filter, /proc and /sys for writing, the guest's own devices; none of the host's
    #[arg(long)]
    privileged: bool,
    /// seccomp=unconfined, seccomp=FILE, no-new-privileges, unmask=ALL
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Start it again when it ends (needs -d)
    #[arg(long, value_name = "POLICY", value_parser = plan::restart, default_value = "no")]
    restart: RestartPolicy,
    /// Signal that asks it to end [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds that it then has
    #[arg(long, value_name = "SECONDS", default_value_t = flags::STOP_SECONDS)]
    stop_timeout: u64,
    #[command(flatten)]
    network: NetworkArgs,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// When to ask the registry
    #[arg(long, value_enum, default_value_t)]
    pull: PullPolicy,
    /// No progress of pulls
    #[arg(short, long)]
    quiet: bool,
    /// Name or id of the image
    image: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Where the container goes.
enum Place {
    /// A pod of its own, which goes with it.
    Private,
    /// A new pod that stays.
    New(String),
    /// One that is there.
    Existing(String),
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<u8> {
    if args.tty && args.interactive && !args.detach && !attach::can_be_terminal() {
        return Err(anyhow::anyhow!("-t needs a terminal, and standard input is none")).hint("leave -t away");
    }
    if args.restart != RestartPolicy::Never && (!args.detach || args.rm) {
        return Err(anyhow::anyhow!("--restart needs somebody who stays, and something that does"))
            .hint("use -d with it, and not --rm");
    }
    // Before an image is pulled in vain.
    crate::host::kvm_is_there()?;
    if args.detach { detached(&engine, &args).await } else { foreground::run(engine, args).await }
}

async fn detached(engine: &Engine, args: &Args) -> anyhow::Result<u8> {
    let progress = progress::of_images(args.quiet);
    let id = match plan::place(args)? {
        Place::Existing(name) => {
            let (pod, container, _leases) = join(engine, &name, &plan::container(args)?, progress).await?;
            supervise_one(engine, &pod, &container).await?;
            container.id
        }
        place => {
            let prepared = prepare::pod(engine, &plan::pod(args, &place)?, progress).await?;
            super::kube::start(engine, &prepared).await?;
            prepared.record.containers.first().map(|c| c.id.clone()).unwrap_or_default()
        }
    };
    output::print(&id)?;
    Ok(0)
}

/// The pod that a container shall be added to.
async fn running_pod(engine: &Engine, name: &str) -> anyhow::Result<PodRecord> {
    let pod = lookup::pod(&observe::all(engine).await?, name).hint(format!("`--pod new:{name}` makes it"))?;
    if pod.phase.is_over() || pod.private {
        let why = if pod.private { "belongs to another container" } else { "has ended" };
        return Err(anyhow::anyhow!("pod {name} {why}")).hint("`husk pod ls` shows what there is");
    }
    Ok(pod)
}

/// Adds a container to a running pod, which grows by the container's limits.
async fn join(
    engine: &Engine,
    name: &str,
    plan: &ContainerPlan,
    progress: Arc<dyn Progress>,
) -> anyhow::Result<(PodRecord, ContainerRecord, Vec<Lease>)> {
    let pod = running_pod(engine, name).await?;
    let (container, leases) = prepare::into_pod(engine, &pod, plan, progress).await?;
    let limited = plan.limits.memory.is_some() || plan.limits.cpu_milli.is_some();
    if limited && let Err(error) = size::follow(engine, &pod.id).await {
        engine.pods.open(&pod.id).remove_container(&container.id)?;
        return Err(error)
            .hint("without --memory and --cpus of its own a container shares what the pod has with the others");
    }
    Ok((pod, container, leases))
}

/// Starts a supervisor for a container that was added to a pod, and removes it again when it cannot be started.
async fn supervise_one(engine: &Engine, pod: &PodRecord, container: &ContainerRecord) -> anyhow::Result<()> {
    let dir = engine.pods.open(&pod.id);
    let mut reports = detach::spawn(&dir, &pod.id, std::slice::from_ref(&container.id))?;
    loop {
        match reports.next().await {
            Some(Report::Ready) => return Ok(()),
            Some(Report::Failed { text, exit_code, .. }) => {
                dir.remove_container(&container.id)?;
                size::follow_removal(engine, &pod.id).await;
                return Err(anyhow::anyhow!(text)).exit_code(exit_code);
            }
            Some(_) => {}
            None => {
                dir.remove_container(&container.id).context("the supervisor ended without a word")?;
                anyhow::bail!("the container's supervisor ended without a word");
            }
        }
    }
}
