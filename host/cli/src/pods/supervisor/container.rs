//! One container's life under its supervisor: started, awaited, and started again after a delay.

use std::time::Duration;

use husk_client::Status as TaskStatus;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::super::backoff::{self, Backoff};
use super::super::record::{ContainerRecord, Status, Wanted};
use super::super::runner::{self, Ended, StartError};
use super::Supervisor;
use super::attend::Reason;
use crate::error;

/// How often a back-off looks whether its container is still wanted.
const POLL: Duration = Duration::from_millis(200);
/// Exit code of a container that could not be started, as Kubernetes reports it.
const START_ERROR: u32 = 128;

/// A container that runs.
pub(super) struct Begun {
    container: ContainerRecord,
    /// Started here, not taken over.
    fresh: bool,
}

impl Supervisor {
    /// Runs a container again and again, as its policy and its user want it.
    pub(super) async fn keep(&self, id: &str, first: oneshot::Sender<Result<(), StartError>>) {
        let mut first = Some(first);
        let mut backoff = Backoff::from_env();
        loop {
            let began = Instant::now();
            let code = match self.begin(id).await {
                Ok(Some(begun)) => {
                    let first = first.take();
                    self.run_attended(begun, || {
                        if let Some(first) = first {
                            let _ = first.send(Ok(()));
                        }
                    })
                    .await
                    .code
                }
                Ok(None) => return,
                Err(error) => {
                    if let Some(first) = first.take() {
                        let _ = first.send(Err(error));
                        return;
                    }
                    tracing::warn!("{error}");
                    START_ERROR
                }
            };
            if !self.again(id, code) {
                self.change(id, ContainerRecord::stays_ended);
                return;
            }
            if !self.back_off(id, backoff.delay(began.elapsed())).await {
                return;
            }
        }
    }

    /// One run from start to end; `None` when it is not wanted any more.
    pub(super) async fn run_once(&self, id: &str) -> Result<Option<Ended>, StartError> {
        match self.begin(id).await? {
            Some(begun) => Ok(Some(self.run_attended(begun, || {}).await)),
            None => Ok(None),
        }
    }

    /// A run to its end, with its hooks and probes.
    async fn run_attended(&self, begun: Begun, started: impl FnOnce() + Send) -> Ended {
        let reason = Reason::default();
        let Begun { container, fresh } = begun;
        tokio::select! {
            ended = self.collect(&container.id, &reason) => ended,
            never = self.attend(&container, fresh, &reason, started) => match never {},
        }
    }

    /// Starts the container, or takes over one that runs already.
    async fn begin(&self, id: &str) -> Result<Option<Begun>, StartError> {
        let Some(container) = self.wanted(id) else { return Ok(None) };
        if container.state.has_processes() {
            match self.shim.state(id, None).await {
                Ok(state) if matches!(state.status, TaskStatus::Running | TaskStatus::Paused | TaskStatus::Stopped) => {
                    return Ok(Some(Begun { container, fresh: false }));
                }
                _ => {}
            }
        }
        let stdio = runner::detached_streams(&self.dir, &container);
        let started = match runner::create(&self.shim, &self.dir, &container, stdio).await {
            Ok(()) => runner::start(&self.shim, &container).await,
            Err(error) => Err(error),
        };
        match started {
            Ok(pid) => {
                self.change(id, |c| c.state.running(pid, Timestamp::now()));
                Ok(Some(Begun { container, fresh: true }))
            }
            Err(error) => {
                let code = match error.exit_code() {
                    error::exit::HUSK => START_ERROR,
                    code => u32::from(code),
                };
                self.change(id, |c| c.state.exited(code, 0, Timestamp::now(), Some(error.to_string())));
                Err(error)
            }
        }
    }

    /// Waits for the end and puts it on record before the task is deleted.
    async fn collect(&self, id: &str, reason: &Reason) -> Ended {
        let mut ended = runner::wait(&self.shim, id).await;
        let reason = reason.lock().ok().and_then(|mut reason| reason.take());
        ended.message = ended.message.or(reason);
        self.change(id, |c| {
            c.state.exited(ended.code, ended.oom_kills, ended.at, ended.message.clone());
            // In the same step, so that nobody takes this end for the last one.
            if c.wanted == Wanted::Run && backoff::restarts(c.restart, ended.code) {
                c.state.status = Status::Restarting;
            }
        });
        // When the pod is gone, so is the task.
        let _ = self.shim.delete(id, None).await;
        ended
    }

    /// Whether a container that ended is to be started again.
    pub(super) fn again(&self, id: &str, code: u32) -> bool {
        !self.is_over() && self.wanted(id).is_some_and(|c| backoff::restarts(c.restart, code))
    }

    /// The container's record, unless the user wants it stopped, or it or the pod is gone.
    fn wanted(&self, id: &str) -> Option<ContainerRecord> {
        let record = self.dir.record().ok()?;
        if record.phase.is_over() {
            return None;
        }
        record.container(id).filter(|c| c.wanted == Wanted::Run).cloned()
    }

    /// Waits before a restart. False when the restart is not wanted any more.
    pub(super) async fn back_off(&self, id: &str, delay: Duration) -> bool {
        let next = SignedDuration::try_from(delay).ok().and_then(|d| Timestamp::now().checked_add(d).ok());
        self.change(id, |c| {
            c.state.status = Status::Restarting;
            c.state.next_start = next;
        });
        let until = Instant::now() + delay;
        loop {
            if self.is_over() || self.wanted(id).is_none() {
                self.change(id, ContainerRecord::stays_ended);
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.change(id, |c| c.state.restarts = c.state.restarts.saturating_add(1));
                return true;
            }
            sleep(left.min(POLL)).await;
        }
    }
}
