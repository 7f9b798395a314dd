//! A container whose supervisor is this process: that of `husk run` without -d, and that of `husk debug`.

use std::time::Duration;

use anyhow::Context as _;
use husk_client::{Fifos, Shim, TaskError, Wanted};
use husk_image::Lease;
use jiff::Timestamp;

use super::{Args, Place, join, plan};
use crate::engine::Engine;
use crate::error::{self, Advise as _};
use crate::output::progress;
use crate::pods::directory::PodDir;
use crate::pods::prepare;
use crate::pods::process::ProcessId;
use crate::pods::record::{ContainerRecord, Phase};
use crate::pods::runner::{self, Ended};
use crate::pods::supervisor::phase_of;
use crate::pods::{boot, lookup, size, teardown};
use crate::terminal::attach::{self, Process};
use crate::terminal::signals::Forwarded;

/// A container on disk that does not run yet.
pub(in crate::commands) struct Ready {
    dir: PodDir,
    pod: String,
    container: ContainerRecord,
    /// The pod was made for this command.
    own_pod: bool,
    /// The pod goes when the container has ended.
    private: bool,
    _leases: Vec<Lease>,
}

impl Ready {
    /// In a pod that is there and stays.
    pub(in crate::commands) fn in_pod(
        engine: &Engine,
        pod: String,
        container: ContainerRecord,
        leases: Vec<Lease>,
    ) -> Self {
        let dir = engine.pods.open(&pod);
        Self { dir, pod, container, own_pod: false, private: false, _leases: leases }
    }
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<u8> {
    attend(&engine, prepare(&engine, &args)).await
}

/// Makes the container ready and stays with it to its end; answers its exit code.
pub(in crate::commands) async fn attend(
    engine: &Engine,
    preparing: impl Future<Output = anyhow::Result<Ready>>,
) -> anyhow::Result<u8> {
    let mut signals = Forwarded::catch().context("cannot catch signals")?;
    let ready = tokio::select! {
        ready = preparing => ready?,
        signal = signals.next() => return Ok(signalled(signal)),
    };
    let started = tokio::select! {
        started = start(engine, &ready) => started,
        signal = signals.next() => {
            // Whatever it was at: nothing of it stays.
            undo(engine, &ready).await?;
            return Ok(signalled(signal));
        }
    };
    let (shim, fifos) = match started {
        Ok(started) => started,
        Err(error) => {
            undo(engine, &ready).await?;
            return Err(error);
        }
    };
    let ended = attached(&shim, &ready, fifos, signals).await;
    let ended = match ended {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => {
            undo(engine, &ready).await?;
            return Err(error);
        }
        Err(error) => Ended { code: runner::KILLED, oom_kills: 0, at: Timestamp::now(), message: Some(error) },
    };
    if let Some(message) = &ended.message {
        eprintln!("husk: container {}: {message}", ready.container.name);
    } else if ended.oom_kills > 0 {
        eprintln!("husk: container {} was killed by its memory limit", ready.container.name);
    }
    settle(engine, &shim, &ready, &ended).await?;
    Ok(u8::try_from(ended.code).unwrap_or(u8::MAX))
}

fn signalled(signal: u32) -> u8 {
    u8::try_from(signal.saturating_add(128)).unwrap_or(error::exit::HUSK)
}

async fn prepare(engine: &Engine, args: &Args) -> anyhow::Result<Ready> {
    let progress = progress::of_images(args.quiet);
    match plan::place(args)? {
        Place::Existing(name) => {
            let (pod, container, leases) = join(engine, &name, &plan::container(args)?, progress).await?;
            Ok(Ready::in_pod(engine, pod.id, container, leases))
        }
        place => {
            let prepared = prepare::pod(engine, &plan::pod(args, &place)?, progress).await?;
            let container = prepared.record.containers.first().cloned().context("a pod without a container")?;
            let private = prepared.record.private;
            let (dir, pod) = (prepared.dir, prepared.record.id);
            Ok(Ready { dir, pod, container, own_pod: true, private, _leases: prepared.leases })
        }
    }
}

/// Boots the pod, or finds it, and creates the container in it.
async fn start(engine: &Engine, ready: &Ready) -> anyhow::Result<(Shim, Fifos)> {
    let Ready { dir, pod, container, own_pod, .. } = ready;
    dir.update(|record| {
        if let Some(container) = record.container_mut(&container.id) {
            container.supervisor = Some(ProcessId::own());
        }
    })?;
    let shim = if *own_pod {
        boot::boot(engine, dir, pod).await?
    } else {
        engine.connect(pod).await?.context("the pod has just ended")?
    };
    let terminal = container.terminal;
    let wanted = Wanted { stdin: container.stdin, stdout: true, stderr: true, terminal };
    let fifos = Fifos::create(&dir.fifos(), &container.id, wanted).context("cannot make FIFOs for the streams")?;
    let created = runner::create(&shim, dir, container, fifos.stdio()).await;
    created.map_err(with_exit_code)?;
    Ok((shim, fifos))
}

fn with_exit_code(error: runner::StartError) -> anyhow::Error {
    let code = error.exit_code();
    match Err::<(), _>(error).exit_code(code) {
        Err(error) => error,
        Ok(()) => anyhow::anyhow!("no error"),
    }
}

/// Starts the container and stays with it. The outer error is the end of the pod, the inner one a failed start.
async fn attached(
    shim: &Shim,
    ready: &Ready,
    fifos: Fifos,
    signals: Forwarded,
) -> Result<anyhow::Result<Ended>, String> {
    let Ready { dir, container, .. } = ready;
    let id = &container.id;
    // Asked before the start, so that not even the shortest command is missed.
    let (waiter, waited) = (shim.clone(), id.clone());
    let exit = tokio::spawn(async move { waiter.wait(&waited, None).await });
    let pid = match runner::start(shim, container).await {
        Ok(pid) => pid,
        Err(error) => return Ok(Err(with_exit_code(error))),
    };
    let recorded = dir.update(|record| {
        record.phase = Phase::Running;
        record.started.get_or_insert_with(Timestamp::now);
        if let Some(container) = record.container_mut(id) {
            container.state.running(pid, Timestamp::now());
        }
    });
    if let Err(error) = recorded {
        tracing::warn!("the container runs, but that is not on record: {error}");
    }
    let exit = async { exit.await.map_err(|e| TaskError::Internal(e.to_string()))? };
    let process = Process { shim, id, exec: None, terminal: container.terminal };
    match attach::run(process, fifos, signals, exit).await {
        Ok(_) => Ok(Ok(runner::wait(shim, id).await)),
        Err(error) => Err(error::causes(&error)),
    }
}

/// Puts the end on record; the pod and what asked for removal go.
async fn settle(engine: &Engine, shim: &Shim, ready: &Ready, ended: &Ended) -> anyhow::Result<()> {
    let Ready { dir, container, .. } = ready;
    // Removed by somebody else meanwhile: then there is nothing left to settle.
    let Ok(record) = teardown::record_end(dir, &container.id, ended) else { return Ok(()) };
    let _ = shim.delete(&container.id, None).await;
    match (ready.private, container.auto_remove) {
        (true, true) => teardown::remove_pod(engine, &record).await,
        (true, false) => teardown::finish(engine, dir, phase_of(&record, false), ended.message.clone()).await,
        (false, true) => {
            dir.remove_container(&container.id)?;
            if container.joined {
                size::follow_removal(engine, &record.id).await;
            }
            Ok(())
        }
        (false, false) => Ok(()),
    }
}

/// Takes everything back that was made for a container that did not come to run.
async fn undo(engine: &Engine, ready: &Ready) -> anyhow::Result<()> {
    let Ok(pod) = ready.dir.record() else { return Ok(()) };
    if ready.own_pod {
        return teardown::remove_pod(engine, &pod).await;
    }
    let found = lookup::Found { pod, container: ready.container.clone() };
    teardown::signal_end(engine, &found, Duration::ZERO).await?;
    teardown::remove_container(engine, &found).await
}
