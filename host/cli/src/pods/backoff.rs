//! When a container that ended is started again: Kubernetes' rules.
//!
//! The first restart is immediate, then the delay is 10 s and doubles up to 5 min; a run of 10 min or more begins anew
//! (k8s.io/kubernetes `pkg/kubelet/kubelet.go`, `MaxContainerBackOff`; client-go `util/flowcontrol/backoff.go`).

use std::time::Duration;

use super::plan::RestartPolicy;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// After a run of this long the delays begin anew.
const STABLE: Duration = Duration::from_secs(600);

/// Whether a container with this policy is started again after this exit code.
pub(crate) fn restarts(policy: RestartPolicy, exit_code: u32) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    }
}

/// The delays of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// Before the next restart but one.
    next: Option<Duration>,
    /// Real time per nominal time, in thousandths.
    scale: u32,
}

impl Backoff {
    /// With the delays scaled by the environment variable `HUSK_BACKOFF_SCALE` (1 = as Kubernetes, 0.01 = a hundred
    /// times faster): for tests, which cannot wait for minutes.
    pub(crate) fn from_env() -> Self {
        let scale = std::env::var("HUSK_BACKOFF_SCALE").ok().and_then(|text| thousandths(&text));
        Self { next: None, scale: scale.unwrap_or(1000) }
    }

    /// The delay before a container that ran for `ran` is started again.
    pub(crate) fn delay(&mut self, ran: Duration) -> Duration {
        if ran >= STABLE {
            self.next = None;
        }
        let delay = self.next.unwrap_or(Duration::ZERO);
        self.next = Some(self.next.map_or(FIRST, |d| d.saturating_mul(2).min(LONGEST)));
        delay.saturating_mul(self.scale) / 1000
    }
}

/// A decimal between 0 and 1, in thousandths.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let value = whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Backoff = Backoff { next: None, scale: 1000 };
    const SHORT: Duration = Duration::from_secs(1);

    fn delays(backoff: &mut Backoff, count: usize) -> Vec<u64> {
        (0..count).map(|_| backoff.delay(SHORT).as_secs()).collect()
    }

    #[test]
    fn delays_double_from_ten_seconds_to_five_minutes() {
        assert_eq!(delays(&mut NEW.clone(), 9), [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_long_run_begins_anew() {
        let mut backoff = NEW;
        delays(&mut backoff, 5);
        assert_eq!(backoff.delay(STABLE), Duration::ZERO);
        assert_eq!(delays(&mut backoff, 2), [10, 20]);
        assert_eq!(backoff.delay(STABLE - SHORT), Duration::from_secs(40));
    }

    #[test]
    fn the_policy_decides_by_the_exit_code() {
        for (policy, on_success, on_failure) in [
            (RestartPolicy::Always, true, true),
            (RestartPolicy::OnFailure, false, true),
            (RestartPolicy::Never, false, false),
        ] {
            assert_eq!((restarts(policy, 0), restarts(policy, 1)), (on_success, on_failure));
        }
    }

    #[test]
    fn a_scale_is_a_decimal_of_at_most_one() {
        for (text, value) in [("1", Some(1000)), ("0.01", Some(10)), ("0", Some(0)), ("0.0009", Some(0)), ("2", None)] {
            assert_eq!(thousandths(text), value, "{text}");
        }
        assert_eq!(thousandths("x"), None);
        let mut scaled = Backoff { next: None, scale: 10 };
        scaled.delay(SHORT);
        assert_eq!(scaled.delay(SHORT), Duration::from_millis(100));
    }
}
