//! `husk kube`

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use crate::engine::Engine;
use crate::error::{self, Advise as _};
use crate::kube::{self, Source};
use crate::network::flags;
use crate::output::{self, progress};
use crate::pods::detach::{self, Report};
use crate::pods::directory::DirectoryError;
use crate::pods::plan::PodPlan;
use crate::pods::prepare::{self, Prepared};
use crate::pods::record::{Phase, PodRecord};
use crate::pods::{lookup, observe, teardown};
use crate::seccomp;
use crate::terminal::signals::Forwarded;

/// Play Kubernetes manifests
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make the pods of a manifest and start them
    Play {
        /// Remove pods of the same names first
        #[arg(long)]
        replace: bool,
        /// Stay until the pods have ended, or a signal comes, and remove them
        #[arg(short, long)]
        wait: bool,
        /// Network of the pods: bridge, none, or the name of one in /etc/cni/net.d [default: HUSK_NETWORK, else bridge]
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
        /// The pods' cgroups go into this one of the host: a path, or a slice of systemd such as machine.slice
        #[arg(long, value_name = "CGROUP", value_parser = crate::commands::run::flags::cgroup_parent)]
        cgroup_parent: Option<String>,
        /// No progress of pulls
        #[arg(short, long)]
        quiet: bool,
        /// Remove the pods of the manifest instead, as `husk kube down`
        #[arg(long, conflicts_with_all = ["replace", "wait"])]
        down: bool,
        /// File of ConfigMaps that the manifest refers to
        #[arg(long, value_name = "FILE", value_delimiter = ',')]
        configmap: Vec<String>,
        /// Directory of the seccomp profiles of type Localhost
        #[arg(long, value_name = "DIR", default_value = seccomp::PROFILE_ROOT)]
        seccomp_profile_root: PathBuf,
        /// Manifest, or - for standard input
        file: String,
    },
    /// Remove the pods of a manifest, whatever they are doing
    Down {
        /// Manifest, or - for standard input
        file: String,
    },
}

pub(super) async fn run(engine: Engine, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Down { file } | Command::Play { down: true, file, .. } => {
            down(&engine, &kube::pod_names(&read(&file)?)?).await?;
            Ok(0)
        }
        Command::Play {
            replace,
            wait,
            network,
            cgroup_parent,
            quiet,
            down: _,
            configmap,
            seccomp_profile_root,
            file,
        } => {
            let config_maps = configmap.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<_>>>()?;
            let mut plans = kube::read(&read(&file)?, &config_maps)?;
            for plan in &mut plans {
                plan.cgroup_parent.clone_from(&cgroup_parent);
                flags::choose(&mut plan.network, network.as_deref()).with_context(|| format!("pod {}", plan.name))?;
                reachable(plan)?;
                seccomp::resolve(plan, &seccomp_profile_root).with_context(|| format!("pod {}", plan.name))?;
            }
            let mut signals = Forwarded::catch().context("cannot catch signals")?;
            let pods = tokio::select! {
                pods = play(&engine, &plans, replace, quiet) => pods?,
                signal = signals.next() => {
                    // What has been made so far goes again: it was not what was asked for.
                    down(&engine, &names(&plans)).await?;
                    return Ok(u8::try_from(signal.saturating_add(128)).unwrap_or(error::exit::HUSK));
                }
            };
            if wait { wait_and_remove(&engine, &pods, &mut signals).await } else { Ok(0) }
        }
    }
}

/// What asks the pod at its address needs one.
fn reachable(plan: &PodPlan) -> anyhow::Result<()> {
    if !plan.network.is_none() {
        return Ok(());
    }
    match plan.containers.iter().find_map(|c| Some((&c.name, c.health.needs_network()?))) {
        None => Ok(()),
        Some((name, field)) => Err(anyhow::anyhow!(
            "pod {}: {field} of container {name} is asked at the pod's address, and a pod without a network has none",
            plan.name
        ))
        .hint("leave `--network none` (or HUSK_NETWORK) away, or let it run a command (exec)"),
    }
}

fn names(plans: &[PodPlan]) -> Vec<String> {
    plans.iter().map(|plan| plan.name.clone()).collect()
}

fn read(file: &str) -> anyhow::Result<Source> {
    /// A few of the largest ConfigMaps; more data belongs into volumes.
    const LARGEST: u64 = 8 << 20;
    let mut text = String::new();
    let (name, source): (_, Box<dyn std::io::Read>) = match file {
        "-" => ("standard input", Box::new(std::io::stdin())),
        path => {
            let opened = std::fs::File::open(path).with_context(|| format!("cannot open {path}"));
            (path, Box::new(opened.hint("give the path of a manifest, or - for standard input")?))
        }
    };
    let mut source = source.take(LARGEST);
    source.read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
    ensure!(source.limit() > 0, "{name} has more than {} MiB", LARGEST >> 20);
    Ok(Source { name: name.to_owned(), text })
}

/// Makes and starts every pod. When one fails, it is gone again, and the ones before it stay.
async fn play(engine: &Engine, plans: &[PodPlan], replace: bool, quiet: bool) -> anyhow::Result<Vec<PodRecord>> {
    if replace {
        remove(engine, &names(plans), true).await?;
    }
    let mut pods = Vec::with_capacity(plans.len());
    for plan in plans {
        let prepared = prepare::pod(engine, plan, progress::of_images(quiet)).await;
        let prepared = prepared.with_context(|| format!("pod {}", plan.name))?;
        start(engine, &prepared).await.with_context(|| format!("pod {}", plan.name))?;
        announce(&prepared.record)?;
        pods.push(prepared.record);
    }
    Ok(pods)
}

/// As `podman kube play` does.
fn announce(pod: &PodRecord) -> anyhow::Result<()> {
    output::print(&format!("Pod:\n{}", pod.id))?;
    output::print(if pod.containers.len() == 1 { "Container:" } else { "Containers:" })?;
    pod.containers.iter().try_for_each(|c| output::print(&c.id))
}

/// Starts the pod's supervisor and waits until every container has started.
pub(super) async fn start(engine: &Engine, prepared: &Prepared) -> anyhow::Result<()> {
    let mut reports = detach::spawn(&prepared.dir, &prepared.record.id, &[])?;
    let failure = loop {
        match reports.next().await {
            Some(Report::Ready) => return Ok(()),
            Some(Report::Notice { text }) => eprintln!("husk: pod {}: {text}", prepared.record.name),
            Some(Report::Claimed) => {}
            Some(Report::Failed { text, hint, exit_code, keep }) => break Some((text, hint, exit_code, keep)),
            None => break None,
        }
    };
    let Some((text, hint, exit_code, keep)) = failure else {
        return match prepared.dir.record() {
            // Stopped by somebody before it was all started: that is what they wanted.
            Ok(record) if record.phase == Phase::Stopped => Ok(()),
            Err(DirectoryError::Gone) => Ok(()),
            _ => {
                let log = std::fs::read_to_string(prepared.dir.supervisor_log()).unwrap_or_default();
                teardown::remove_pod(engine, &prepared.record).await?;
                Err(anyhow::anyhow!("its supervisor ended without a word: {}", log.trim()))
            }
        };
    };
    if !keep {
        teardown::remove_pod(engine, &prepared.record).await?;
    }
    let failed = Err(anyhow::anyhow!(text)).exit_code(exit_code);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

async fn down(engine: &Engine, names: &[String]) -> anyhow::Result<()> {
    remove(engine, names, false).await
}

/// Stops and removes the pods of these names; that there is none is fine.
async fn remove(engine: &Engine, names: &[String], quiet: bool) -> anyhow::Result<()> {
    let mut removed = Vec::new();
    for name in names {
        match lookup::pod(&engine.pods.list()?, name) {
            Err(lookup::LookupError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
            // By its name only: a name of digits could begin another pod's id.
            Ok(pod) if pod.name == *name => {
                // What cannot be stopped in good order is removed by force.
                let _ = teardown::stop_pod(engine, &pod, None).await;
                teardown::remove_pod(engine, &pod).await?;
                removed.push(pod.id);
            }
            Ok(_) => {}
        }
    }
    if !quiet {
        output::print("Pods removed:")?;
        removed.iter().try_for_each(|id| output::print(id))?;
    }
    Ok(())
}

/// Until all pods have ended: 0 when all succeeded, 1 when one failed; then, or after a signal, they are removed.
async fn wait_and_remove(engine: &Engine, pods: &[PodRecord], signals: &mut Forwarded) -> anyhow::Result<u8> {
    let ended = async {
        loop {
            let now = observe::all(engine).await?;
            let mine: Vec<_> = now.iter().filter(|p| pods.iter().any(|own| own.id == p.id)).collect();
            if mine.iter().all(|p| p.phase.is_over()) {
                return anyhow::Ok(u8::from(mine.iter().any(|p| p.phase == Phase::Failed)));
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let code = tokio::select! {
        code = ended => code?,
        signal = signals.next() => u8::try_from(signal.saturating_add(128)).unwrap_or(error::exit::HUSK),
    };
    for pod in pods {
        let _ = teardown::stop_pod(engine, pod, None).await;
        teardown::remove_pod(engine, pod).await?;
    }
    Ok(code)
}
