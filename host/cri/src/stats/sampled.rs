//! The last answer about one thing, and how fast its CPU time grew.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use husk_client::{PodStats, Usage};
use tokio::time::Instant;

use crate::state::nanoseconds;

/// The shortest time over which a rate means something: looks may follow each other closely when somebody asks.
const MIN_WINDOW: Duration = Duration::from_millis(500);

/// What has a CPU time.
pub trait Counted {
    /// Microseconds since it began.
    fn cpu_us(&self) -> u64;
}

impl Counted for Usage {
    fn cpu_us(&self) -> u64 {
        self.cpu_us
    }
}

impl Counted for PodStats {
    fn cpu_us(&self) -> u64 {
        self.cpu_us
    }
}

/// The last sample of something; none before the first.
#[derive(Debug)]
pub struct Sampled<T> {
    last: Mutex<Option<Arc<Sample<T>>>>,
}

/// One sample.
#[derive(Debug)]
pub struct Sample<T> {
    pub value: T,
    /// When it was taken: nanoseconds since the epoch.
    pub at: i64,
    /// CPU time per time between this and an earlier sample, in billionths of a core. `None` until there are two, and when
    /// the CPU time has gone back, which only a lie or a new start makes it do.
    pub nano_cores: Option<u64>,
    /// What the next rate is counted from.
    since: (Instant, u64),
}

impl<T> Default for Sampled<T> {
    fn default() -> Self {
        Self { last: Mutex::default() }
    }
}

impl<T> Sampled<T> {
    #[must_use]
    pub fn last(&self) -> Option<Arc<Sample<T>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T: Counted> Sampled<T> {
    /// Keeps an answer that has just come.
    pub fn record(&self, value: T) {
        self.record_at(value, Instant::now(), nanoseconds(SystemTime::now()));
    }

    fn record_at(&self, value: T, now: Instant, at: i64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let used = value.cpu_us();
        let (nano_cores, since) = match last.as_ref() {
            None => (None, (now, used)),
            Some(earlier) => {
                let elapsed = now.saturating_duration_since(earlier.since.0);
                if elapsed < MIN_WINDOW {
                    (earlier.nano_cores, earlier.since)
                } else {
                    (used.checked_sub(earlier.since.1).map(|used| rate(used, elapsed)), (now, used))
                }
            }
        };
        *last = Some(Arc::new(Sample { value, at, nano_cores, since }));
    }
}

/// Billionths of a core that `used` microseconds in `elapsed` are.
fn rate(used: u64, elapsed: Duration) -> u64 {
    let nanoseconds = u128::from(used).saturating_mul(1000).saturating_mul(1_000_000_000);
    u64::try_from(nanoseconds.checked_div(elapsed.as_nanos()).unwrap_or_default()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu_us: u64) -> Usage {
        Usage { cpu_us, ..Usage::default() }
    }

    /// Rates after samples of (milliseconds since the first, CPU time in microseconds).
    fn rates(samples: &[(u64, u64)]) -> Vec<Option<u64>> {
        let (sampled, start) = (Sampled::default(), Instant::now());
        let rate = |(ms, cpu_us): &(u64, u64)| {
            sampled.record_at(usage(*cpu_us), start + Duration::from_millis(*ms), 1);
            sampled.last().unwrap().nano_cores
        };
        samples.iter().map(rate).collect()
    }

    #[test]
    fn a_rate_is_of_two_samples() {
        assert_eq!(rates(&[(0, 0), (10_000, 5_000_000)]), [None, Some(500_000_000)]);
        assert_eq!(rates(&[(0, 7), (1000, 7)]), [None, Some(0)]);
    }

    #[test]
    fn samples_that_are_too_close_do_not_make_a_rate() {
        let rates = rates(&[(0, 0), (1, 1_000_000), (1000, 2_000_000), (1100, 9_000_000), (2000, 2_000_000)]);
        assert_eq!(rates, [None, None, Some(2_000_000_000), Some(2_000_000_000), Some(0)]);
    }

    #[test]
    fn time_that_goes_back_has_no_rate_and_the_next_begins_there() {
        assert_eq!(rates(&[(0, 9_000_000), (1000, 0), (2000, 1_000_000)]), [None, None, Some(1_000_000_000)]);
    }

    #[test]
    fn absurd_numbers_are_bounded() {
        assert_eq!(rates(&[(0, 0), (500, u64::MAX)]), [None, Some(u64::MAX)]);
        assert_eq!(rate(1, Duration::ZERO), 0);
    }
}
