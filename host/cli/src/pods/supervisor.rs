//! Looking after a pod's containers: init containers in order, the others together, each restarted by its policy,
//! every change put on record, and the pod ended when nothing in it is left to run.
//!
//! One task per container. What the user wants is read from the record each time before something is started, so
//! `husk stop` needs no way to talk to a supervisor.

mod attend;
mod container;

use std::sync::Arc;
use std::time::Duration;

use husk_client::Shim;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backoff::{self, Backoff};
use super::boot;
use super::detach::{Report, Reporter};
use super::directory::{DirectoryError, PodDir};
use super::plan::{ExitPolicy, Kind};
use super::process::ProcessId;
use super::record::{ContainerRecord, Phase, PodRecord, Status, Wanted};
use super::runner::StartError;
use super::{size, teardown};
use crate::engine::Engine;
use crate::error;

struct Supervisor {
    engine: Engine,
    dir: PodDir,
    shim: Shim,
    reporter: Reporter,
    /// True once the pod's VM has ended.
    over: watch::Receiver<bool>,
}

/// Containers that are kept running, a task each.
#[derive(Default)]
struct Kept {
    apps: JoinSet<()>,
    sidecars: JoinSet<()>,
}

/// How starting the pod's containers went.
enum Started {
    All,
    /// Stopped by the user, or the VM ended, before all were started.
    Abandoned,
    /// A container cannot be started at all.
    CannotStart(StartError),
    /// An init container failed and may not be tried again.
    InitFailed(String),
}

/// Supervises `only` these containers of a pod (all when empty) until they have ended for good.
pub(crate) async fn supervise(
    engine: Engine,
    pod: String,
    only: Vec<String>,
    reporter: Reporter,
) -> anyhow::Result<()> {
    let dir = engine.pods.open(&pod);
    let own = ProcessId::own();
    let record = dir.update(|record| {
        for container in record.containers.iter_mut().filter(|c| only.is_empty() || only.contains(&c.id)) {
            container.supervisor = Some(own);
        }
    })?;
    // What is on disk could be removed by `husk rmi` while a restart still needs it.
    let _leases = lease_images(&engine, &record, own);
    let shim = match engine.connect(&pod).await? {
        Some(shim) => shim,
        None => match boot::boot(&engine, &dir, &pod).await {
            Ok(shim) => shim,
            Err(error) => {
                let _ = dir.update(|r| r.end(Phase::Failed, Some(error::causes(&error)), Timestamp::now()));
                reporter.send(&failed(&error, false));
                return Err(error);
            }
        },
    };
    let over = watch_sandbox(&shim, &pod);
    let supervisor = Arc::new(Supervisor { engine, dir, shim, reporter, over });
    let mine: Vec<_> = record.containers.into_iter().filter(|c| c.supervisor == Some(own)).collect();
    supervisor.run(mine).await
}

fn lease_images(engine: &Engine, record: &PodRecord, own: ProcessId) -> Vec<husk_image::Lease> {
    let Ok(store) = engine.store() else { return Vec::new() };
    let mine = record.containers.iter().filter(|c| c.supervisor == Some(own));
    let images = mine.flat_map(|c| std::iter::once(&c.image_id).chain(&c.volume_images));
    images.filter_map(|id| store.running(id).ok()?.lease().ok()).collect()
}

/// Turns true when the pod's VM ends.
fn watch_sandbox(shim: &Shim, pod: &str) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let (shim, pod) = (shim.clone(), pod.to_owned());
    tokio::spawn(async move {
        // An error means that the shim has gone, and the VM with it.
        let _ = shim.wait(&pod, None).await;
        let _ = sender.send(true);
    });
    receiver
}

pub(crate) fn failed(error: &anyhow::Error, keep: bool) -> Report {
    let report = error::report(error);
    let mut lines = report.lines();
    let text = lines.next().unwrap_or_default().trim_start_matches("husk: ").to_owned();
    let hint = lines.next().and_then(|line| line.strip_prefix("hint: ")).map(str::to_owned);
    Report::Failed { text, hint, exit_code: error::exit_code(error), keep }
}

impl Supervisor {
    async fn run(self: Arc<Self>, containers: Vec<ContainerRecord>) -> anyhow::Result<()> {
        let mut running = Kept::default();
        self.reporter.send(&Report::Claimed);
        let started = self.start_all(&containers, &mut running).await;
        match started {
            Started::All => {
                self.reporter.send(&Report::Ready);
                self.reporter.close();
                while running.apps.join_next().await.is_some() {}
                let ended = self.end(&containers, None).await;
                while running.sidecars.join_next().await.is_some() {}
                ended
            }
            Started::Abandoned => {
                self.reporter.close();
                self.end(&containers, None).await
            }
            Started::CannotStart(error) => {
                let exit_code = error.exit_code();
                self.give_up(&containers, &error.to_string()).await?;
                let keep = false;
                self.reporter.send(&Report::Failed { text: error.to_string(), hint: None, exit_code, keep });
                Err(error.into())
            }
            Started::InitFailed(text) => {
                self.end(&containers, Some(text.clone())).await?;
                let hint = Some("`husk logs` shows what it wrote".to_owned());
                self.reporter.send(&Report::Failed { text, hint, exit_code: error::exit::HUSK, keep: true });
                Ok(())
            }
        }
    }

    /// The containers in their order: each init container to its end, each sidecar until it has started, then all
    /// others at once.
    async fn start_all(self: &Arc<Self>, containers: &[ContainerRecord], running: &mut Kept) -> Started {
        let (first, others): (Vec<_>, Vec<_>) =
            containers.iter().cloned().partition(|c| matches!(c.kind, Kind::Init | Kind::Sidecar));
        for container in &first {
            let started = match container.kind {
                Kind::Init => self.run_init(container).await,
                _ => self.start_kept(std::slice::from_ref(container), &mut running.sidecars).await,
            };
            if !matches!(started, Started::All) {
                return started;
            }
        }
        let _ = self.dir.update(|record| {
            record.phase = Phase::Running;
            record.started.get_or_insert_with(Timestamp::now);
        });
        self.start_kept(&others, &mut running.apps).await
    }

    /// An init container runs until it has succeeded, by the pod's policy again and again.
    async fn run_init(&self, container: &ContainerRecord) -> Started {
        let name = &container.short_name;
        if container.state.status == Status::Exited && container.state.exit_code == Some(0) {
            return Started::All;
        }
        let mut backoff = Backoff::from_env();
        loop {
            let began = Instant::now();
            let ended = match self.run_once(&container.id).await {
                Ok(Some(ended)) => ended,
                Ok(None) => return Started::Abandoned,
                Err(error) => return Started::CannotStart(error),
            };
            if ended.code == 0 {
                return Started::All;
            }
            if self.is_over() {
                return Started::Abandoned;
            }
            let why = if ended.oom_kills > 0 { " (killed by its memory limit)" } else { "" };
            if !backoff::restarts(container.restart, ended.code) {
                return Started::InitFailed(format!("init container {name} ended with exit code {}{why}", ended.code));
            }
            let delay = backoff.delay(began.elapsed());
            let text = format!(
                "init container {name} ended with exit code {}{why}; trying again in {} s",
                ended.code,
                delay.as_secs()
            );
            self.reporter.send(&Report::Notice { text });
            if !self.back_off(&container.id, delay).await {
                return Started::Abandoned;
            }
        }
    }

    /// Starts containers that are kept running, all at once, and waits until each has started once.
    async fn start_kept(self: &Arc<Self>, containers: &[ContainerRecord], running: &mut JoinSet<()>) -> Started {
        let mut firsts = Vec::with_capacity(containers.len());
        for container in containers {
            let (sender, receiver) = oneshot::channel();
            firsts.push(receiver);
            let (supervisor, id) = (Arc::clone(self), container.id.clone());
            running.spawn(async move { supervisor.keep(&id, sender).await });
        }
        for first in firsts {
            match first.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Started::CannotStart(error),
                Err(_) => return Started::Abandoned,
            }
        }
        Started::All
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut ContainerRecord)) {
        let changed = self.dir.update(|record| {
            if let Some(container) = record.container_mut(id) {
                change(container);
            }
        });
        match changed {
            Ok(_) | Err(DirectoryError::Gone) => {}
            Err(error) => tracing::warn!("container {id}: its state is not on record: {error}"),
        }
    }

    fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// The containers have ended for good: what becomes of the pod, and of what asked to be removed.
    async fn end(&self, mine: &[ContainerRecord], message: Option<String>) -> anyhow::Result<()> {
        let Ok(record) = self.dir.record() else { return Ok(()) };
        let others = record.containers.iter().filter(|c| !mine.iter().any(|m| m.id == c.id));
        let others = others.filter(|c| c.kind != Kind::Ephemeral);
        let in_use = others.clone().any(|c| c.state.is_active() || c.supervisor.is_some_and(|s| s.is_alive()));
        let over = self.is_over();
        if over || !in_use && record.exit_policy == ExitPolicy::Stop {
            self.stop_sidecars(&record).await;
            let phase = phase_of(&record, over);
            teardown::finish(&self.engine, &self.dir, phase, message.or_else(|| over_message(over, &record))).await?;
        }
        self.remove_what_asked_for_it(mine).await
    }

    /// Some container cannot run at all: the pod, or only that container when the pod is others' too, goes.
    async fn give_up(&self, mine: &[ContainerRecord], message: &str) -> anyhow::Result<()> {
        let Ok(record) = self.dir.record() else { return Ok(()) };
        let mut lasting = record.containers.iter().filter(|c| c.kind != Kind::Ephemeral);
        let all = lasting.all(|c| mine.iter().any(|m| m.id == c.id));
        if all && record.started.is_none_or(|_| record.exit_policy == ExitPolicy::Stop) || self.is_over() {
            teardown::finish(&self.engine, &self.dir, Phase::Failed, Some(message.to_owned())).await?;
        }
        Ok(())
    }

    async fn stop_sidecars(&self, record: &PodRecord) {
        for container in record.containers.iter().rev().filter(|c| c.kind == Kind::Sidecar) {
            let found = super::lookup::Found { pod: record.clone(), container: container.clone() };
            let grace = Duration::from_secs(container.stop_timeout);
            let ended = if self.is_first_to_stop(&container.id) {
                teardown::signal_end(&self.engine, &found, grace).await
            } else {
                teardown::wait_for_end(&self.engine, &found, grace).await
            };
            if let Err(error) = ended {
                tracing::warn!("sidecar {}: {error}", container.name);
            }
        }
    }

    /// Whether nobody else stops the container already: whoever stops a pod says so on record before it begins. A
    /// second stop signal could meet the program while it sees to the first.
    fn is_first_to_stop(&self, id: &str) -> bool {
        let mut first = true;
        self.change(id, |container| {
            first = std::mem::replace(&mut container.wanted, Wanted::Stop) == Wanted::Run;
        });
        first
    }

    async fn remove_what_asked_for_it(&self, mine: &[ContainerRecord]) -> anyhow::Result<()> {
        let Ok(record) = self.dir.record() else { return Ok(()) };
        for container in mine.iter().filter(|c| c.auto_remove) {
            if record.private {
                teardown::remove_pod(&self.engine, &record).await?;
                return Ok(());
            }
            self.dir.remove_container(&container.id)?;
            if container.joined {
                size::follow_removal(&self.engine, &record.id).await;
            }
        }
        Ok(())
    }
}

/// As Kubernetes counts: failed when an app container ended with another code than 0.
pub(crate) fn phase_of(record: &PodRecord, vm_died: bool) -> Phase {
    let mut apps = record.containers.iter().filter(|c| c.kind == Kind::App);
    if vm_died && !apps.clone().all(|c| c.wanted == Wanted::Stop) {
        Phase::Failed
    } else if apps.clone().all(|c| c.wanted == Wanted::Stop) {
        Phase::Stopped
    } else if apps.all(|c| c.state.exit_code == Some(0)) {
        Phase::Succeeded
    } else {
        Phase::Failed
    }
}

fn over_message(over: bool, record: &PodRecord) -> Option<String> {
    let asked = record.containers.iter().all(|c| c.wanted == Wanted::Stop);
    (over && !asked).then(|| "its VM ended unexpectedly".to_owned())
}

#[cfg(test)]
mod tests;
