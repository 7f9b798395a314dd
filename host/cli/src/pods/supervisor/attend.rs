//! What is done to a container while it runs: its postStart hook, then its probes, by kubelet's rules
//! (k8s.io/kubernetes `pkg/kubelet/prober/worker.go`).

use std::convert::Infallible;
use std::future::pending;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::super::health::{Failure, Tally, Target, Verdict};
use super::super::plan::{Kind, Probe};
use super::super::record::{ContainerRecord, Status};
use super::super::teardown;
use super::Supervisor;

/// Why a container is ended by its supervisor; it goes on record with the end.
pub(super) type Reason = Mutex<Option<String>>;

impl Supervisor {
    /// Looks after a run of the container until it is dropped, which happens at the run's end. `started` is called once
    /// the container counts as started. `fresh`: it has just been started, not taken over.
    pub(super) async fn attend(
        &self,
        container: &ContainerRecord,
        fresh: bool,
        reason: &Reason,
        started: impl FnOnce() + Send,
    ) -> Infallible {
        let Ok(record) = self.dir.record() else { return pending().await };
        let target = Target::of(&self.shim, &self.dir, &record);
        let health = &container.health;
        let mut started = Some(started);
        if let Some(hook) = health.post_start.as_ref().filter(|_| fresh)
            // Kubelet waits as long as the hook takes.
            && let Err(failure) = target.act(container, hook, Duration::MAX).await
        {
            // The one who waits for the start is told of the restarts, not of this.
            if let Some(started) = started.take() {
                started();
            }
            return self.kill(&target, container, reason, format!("its postStart hook failed: {failure}"), None).await;
        }
        // The next containers wait for a sidecar's startup probe, and for no other's.
        if container.kind != Kind::Sidecar
            && let Some(started) = started.take()
        {
            started();
        }
        let began = Instant::now();
        if let Some(probe) = &health.startup {
            self.set_ready(container, false);
            if let Err(failure) = watch(&target, container, probe, began, || true).await {
                let why = format!("its startup probe failed: {failure}");
                return self.kill(&target, container, reason, why, probe.grace).await;
            }
        }
        if health.tells_readiness() {
            self.set_ready(container, health.readiness.is_none());
        }
        if let Some(started) = started.take() {
            started();
        }
        tokio::join!(self.readiness(&target, container, began), self.liveness(&target, container, began, reason));
        pending().await
    }

    async fn readiness(&self, target: &Target, container: &ContainerRecord, began: Instant) {
        let Some(probe) = &container.health.readiness else { return };
        let mut ready = false;
        let mut change = |now: bool| {
            if now != ready {
                ready = now;
                self.set_ready(container, now);
            }
            false
        };
        // Nothing ends with its failure: it is asked again.
        while watch(target, container, probe, began, || change(true)).await.is_err() {
            change(false);
            sleep(Duration::from_secs(u64::from(probe.period))).await;
        }
    }

    async fn liveness(&self, target: &Target, container: &ContainerRecord, began: Instant, reason: &Reason) {
        let Some(probe) = &container.health.liveness else { return };
        if let Err(failure) = watch(target, container, probe, began, || false).await {
            let why = format!("its liveness probe failed: {failure}");
            self.kill(target, container, reason, why, probe.grace).await;
        }
    }

    /// Ends the run; what comes then is the restart policy's business.
    async fn kill(
        &self,
        target: &Target,
        container: &ContainerRecord,
        reason: &Reason,
        why: String,
        grace: Option<u64>,
    ) -> Infallible {
        tracing::warn!("container {}: {why}", container.name);
        if let Ok(mut reason) = reason.lock() {
            *reason = Some(why);
        }
        self.set_ready_if_told(container, false);
        let grace = Duration::from_secs(grace.unwrap_or(container.stop_timeout));
        if let Err(error) = teardown::end_task(target, container, grace).await {
            tracing::warn!("container {}: {error}", container.name);
        }
        pending().await
    }

    fn set_ready_if_told(&self, container: &ContainerRecord, ready: bool) {
        if container.health.tells_readiness() {
            self.set_ready(container, ready);
        }
    }

    fn set_ready(&self, container: &ContainerRecord, ready: bool) {
        self.change(&container.id, |c| {
            if c.state.has_processes() {
                c.state.ready = Some(ready);
            }
        });
    }
}

/// Probes again and again. When the probe has succeeded often enough in a row, `enough` says whether that is all; when
/// it has failed often enough, its last failure is the answer.
async fn watch(
    target: &Target,
    container: &ContainerRecord,
    probe: &Probe,
    began: Instant,
    mut enough: impl FnMut() -> bool,
) -> Result<(), Failure> {
    let delay = Duration::from_secs(u64::from(probe.initial_delay));
    sleep(delay.saturating_sub(began.elapsed())).await;
    let mut ticks = interval(Duration::from_secs(u64::from(probe.period.max(1))));
    // A slow answer is no reason to ask twice at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tally = Tally::of(probe);
    let limit = Duration::from_secs(u64::from(probe.timeout));
    loop {
        ticks.tick().await;
        if is_paused(target, container) {
            continue;
        }
        let result = target.act(container, &probe.action, limit).await;
        // What was asked of a container that was paused meanwhile says nothing.
        if result.is_err() && is_paused(target, container) {
            continue;
        }
        let verdict = tally.note(result.is_ok());
        if verdict == Verdict::Succeeds && enough() {
            return Ok(());
        }
        match result {
            Err(failure) if verdict == Verdict::Fails => return Err(failure),
            Err(failure) => tracing::debug!("container {}: a probe failed: {failure}", container.name),
            Ok(()) => {}
        }
    }
}

/// A paused container answers nothing, and that is what its user wanted.
fn is_paused(target: &Target, container: &ContainerRecord) -> bool {
    let record = target.dir.record().ok();
    let state = record.as_ref().and_then(|record| record.container(&container.id)).map(|c| c.state.status);
    state == Some(Status::Paused)
}
