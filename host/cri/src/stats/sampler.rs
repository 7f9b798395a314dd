//! Who looks at a running pod, and when.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use husk_client::{PodStats, Shim, Usage};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::sampled::Sampled;
use crate::runtime::Engine;
use crate::state::{Container, Sandbox, SandboxPhase};

/// From the beginning of one look at a pod to the next; kubelet's own interval.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Pods are looked at for so long after somebody has asked.
const INTEREST: Duration = Duration::from_secs(120);
/// How long one look may take. What has been answered by then counts.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a question about one pod or container waits for a new look.
const PATIENCE: Duration = Duration::from_secs(1);
/// A look that began so short a time ago is new.
const NEW: Duration = Duration::from_secs(1);

/// When somebody last asked for statistics.
#[derive(Debug, Default)]
pub struct Interest(watch::Sender<Option<Instant>>);

impl Interest {
    /// Somebody asks. Samplers that had paused go on.
    pub fn asked(&self) {
        self.0.send_replace(Some(Instant::now()));
    }

    /// Waits until somebody asks, or not at all if somebody has lately. Costs nothing meanwhile.
    async fn lasting(&self) {
        let lately = |asked: &Option<Instant>| asked.is_some_and(|asked| asked.elapsed() < INTEREST);
        // The sender is in `self`.
        let _ = self.0.subscribe().wait_for(lately).await;
    }
}

/// What is known of a pod, and when it is looked at again.
#[derive(Debug, Default)]
pub struct PodSamples {
    /// By the host's count.
    pub(super) host: Sampled<PodStats>,
    /// By the guest's: all containers together, and the network.
    pub(super) guest: Sampled<Usage>,
    /// Somebody wants a look now.
    wanted: Notify,
    /// When the last look that is over began.
    looked: watch::Sender<Option<Instant>>,
}

impl PodSamples {
    /// Has the pod looked at now, whether or not anybody has asked lately: a container has started, and the first who asks
    /// shall find something.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Waits until the pod is to be looked at.
    async fn next(&self, interest: &Interest) {
        let looked = *self.looked.borrow();
        let turn = async {
            if let Some(looked) = looked {
                sleep_until(looked + INTERVAL).await;
            }
            interest.lasting().await;
        };
        tokio::select! {
            () = turn => {}
            () = self.wanted.notified() => {}
        }
    }

    fn is_new(&self) -> bool {
        self.looked.borrow().is_some_and(|looked| looked.elapsed() < NEW)
    }

    /// Waits for a look that begins from now on.
    async fn look_again(&self) {
        let now = Instant::now();
        self.want();
        let after = |looked: &Option<Instant>| looked.is_some_and(|looked| looked >= now);
        let _ = self.looked.subscribe().wait_for(after).await;
    }
}

/// Looks at a running pod until it ends.
pub(crate) fn watch(engine: &Arc<Engine>, sandbox: &Arc<Sandbox>, shim: Shim) {
    let (engine, sandbox) = (Arc::clone(engine), Arc::clone(sandbox));
    tokio::spawn(async move {
        let looking = async {
            loop {
                sandbox.samples.next(&engine.interest).await;
                let began = Instant::now();
                look(&engine, &sandbox, &shim).await;
                sandbox.samples.looked.send_replace(Some(began));
            }
        };
        tokio::select! {
            () = looking => {}
            () = sandbox.record.wait_for(|record| record.phase == SandboxPhase::NotReady) => {}
        }
    });
}

/// Sees to it that what is known of a pod, and of one of its containers, is new. Waits at most a second: a guest that is
/// slower is told of by what was known before.
pub(crate) async fn freshen(sandbox: &Sandbox, container: Option<&Container>) {
    // A container may have started since.
    let known = container.is_none_or(|container| !container.phase().is_running() || container.sampled.last().is_some());
    let samples = &sandbox.samples;
    if sandbox.is_ready() && !(known && samples.is_new()) {
        // That it comes too late is no error.
        let _ = timeout(PATIENCE, samples.look_again()).await;
    }
}

/// Asks once for everything. Each answer counts as soon as it is there, so that one that never comes spoils none.
async fn look(engine: &Engine, sandbox: &Sandbox, shim: &Shim) {
    let pod = &sandbox.id;
    let mut containers = engine.containers_of(pod);
    containers.retain(|container| container.phase().is_running());
    let host = async {
        match shim.pod_stats().await {
            Ok(stats) => sandbox.samples.host.record(stats),
            Err(error) => tracing::debug!(%pod, "what it takes of the host is not known: {error}"),
        }
    };
    let guest = ask(shim, pod, pod, &sandbox.samples.guest);
    let each = join_all(containers.iter().map(|container| ask(shim, pod, &container.id, &container.sampled)));
    if timeout(DEADLINE, async { tokio::join!(host, guest, each) }).await.is_err() {
        tracing::debug!(%pod, limit = ?DEADLINE, "its guest has not told in time what it takes");
    }
}

/// Asks for a container, or for the pod.
async fn ask(shim: &Shim, pod: &str, id: &str, sampled: &Sampled<Usage>) {
    match shim.usage(id).await {
        Ok(usage) => sampled.record(usage),
        // It may just have ended.
        Err(error) => tracing::debug!(pod, id, "what it takes is not known: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the next look is due after so long, by a clock that stands still but for this.
    async fn is_due(samples: &PodSamples, interest: &Interest, after: Duration) -> bool {
        timeout(after, samples.next(interest)).await.is_ok()
    }

    const TICK: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_pod_nobody_asks_about_is_left_alone() {
        let (samples, interest) = (PodSamples::default(), Interest::default());
        assert!(!is_due(&samples, &interest, HOUR).await);
        interest.asked();
        assert!(is_due(&samples, &interest, TICK).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_looked_at_in_intervals_while_somebody_asks() {
        let (samples, interest) = (PodSamples::default(), Interest::default());
        interest.asked();
        samples.looked.send_replace(Some(Instant::now()));
        assert!(!is_due(&samples, &interest, INTERVAL - TICK).await);
        assert!(is_due(&samples, &interest, 2 * TICK).await);
    }

    #[tokio::test(start_paused = true)]
    async fn interest_ends_and_the_first_who_asks_again_wakes_the_sampler() {
        let (samples, interest) = (PodSamples::default(), Interest::default());
        interest.asked();
        tokio::time::advance(INTEREST).await;
        samples.looked.send_replace(Some(Instant::now()));
        assert!(!is_due(&samples, &interest, HOUR).await);
        interest.asked();
        assert!(is_due(&samples, &interest, TICK).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_starts_is_seen_at_once_also_while_a_look_is_under_way() {
        let (samples, interest) = (PodSamples::default(), Interest::default());
        samples.want();
        assert!(is_due(&samples, &interest, TICK).await);
        assert!(!is_due(&samples, &interest, HOUR).await);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_look_that_begins_after_the_question_answers_it() {
        let samples = PodSamples::default();
        let under_way = Instant::now();
        tokio::time::advance(TICK).await;
        let mut waiting = std::pin::pin!(samples.look_again());
        assert!(timeout(PATIENCE, &mut waiting).await.is_err());
        samples.looked.send_replace(Some(under_way));
        assert!(timeout(PATIENCE, &mut waiting).await.is_err());
        samples.looked.send_replace(Some(Instant::now()));
        assert!(timeout(PATIENCE, &mut waiting).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_grows_old() {
        let samples = PodSamples::default();
        assert!(!samples.is_new());
        samples.looked.send_replace(Some(Instant::now()));
        assert!(samples.is_new());
        tokio::time::advance(NEW).await;
        assert!(!samples.is_new());
    }
}
