//! What happens to containers, as one numbered, replayable stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use husk_agent_api::v1::{Event, event::Kind};
use tokio::sync::{mpsc, watch};

/// Events kept for a caller that comes (back) later.
pub const CAPACITY: usize = 4096;

/// The log.
#[derive(Debug)]
pub struct EventLog {
    inner: Mutex<Inner>,
    latest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    kept: VecDeque<Event>,
}

impl EventLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), latest: watch::Sender::new(0) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an event, with the next number and the present time.
    pub fn emit(&self, kind: Kind) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
        let time_ns = seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
        let mut inner = self.inner();
        let sequence = inner.last.saturating_add(1);
        inner.last = sequence;
        if inner.kept.len() >= CAPACITY {
            inner.kept.pop_front();
        }
        inner.kept.push_back(Event { sequence, time_ns, kind: Some(kind) });
        drop(inner);
        self.latest.send_replace(sequence);
    }

    /// The first kept event after `sequence`.
    #[must_use]
    pub fn after(&self, sequence: u64) -> Option<Event> {
        let inner = self.inner();
        let first = inner.kept.partition_point(|event| event.sequence <= sequence);
        inner.kept.get(first).cloned()
    }

    /// Sends every event after `sequence`, then each new one, until the receiver is dropped. A slow receiver waits for
    /// nobody and holds nobody up: it may only find a gap when the log has overflowed meanwhile.
    pub async fn follow<E: Send + 'static>(&self, mut sequence: u64, to: mpsc::Sender<Result<Event, E>>) {
        let mut latest = self.latest.subscribe();
        loop {
            while let Some(event) = self.after(sequence) {
                sequence = event.sequence;
                if to.send(Ok(event)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = latest.changed() => if changed.is_err() { return },
                () = to.closed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use husk_agent_api::v1::OutOfMemory;

    fn oom(n: u64) -> Kind {
        Kind::Oom(OutOfMemory { container_id: "a".to_owned(), oom_kill: n })
    }

    #[test]
    fn events_are_numbered_from_one() {
        let log = EventLog::new();
        assert!(log.after(0).is_none());
        log.emit(oom(1));
        log.emit(oom(2));
        assert_eq!(log.after(0).unwrap().sequence, 1);
        assert_eq!(log.after(1).unwrap().kind, Some(oom(2)));
        assert!(log.after(2).is_none());
        assert!(log.after(u64::MAX).is_none());
    }

    #[test]
    fn an_overflow_shows_as_a_gap() {
        let log = EventLog::new();
        for n in 0..=CAPACITY {
            log.emit(oom(u64::try_from(n).unwrap()));
        }
        assert_eq!(log.after(0).unwrap().sequence, 2);
    }

    #[tokio::test]
    async fn a_follower_gets_old_and_new_events_once() {
        let log = EventLog::new();
        log.emit(oom(1));
        log.emit(oom(2));
        let (to, mut events) = mpsc::channel::<Result<Event, ()>>(1);
        let follower = tokio::spawn({
            let log = Arc::clone(&log);
            async move { log.follow(1, to).await }
        });
        assert_eq!(events.recv().await.unwrap().unwrap().sequence, 2);
        log.emit(oom(3));
        assert_eq!(events.recv().await.unwrap().unwrap().sequence, 3);
        drop(events);
        follower.await.unwrap();
    }
}
