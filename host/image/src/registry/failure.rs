//! How requests fail, and when they are tried again.

use std::time::Duration;

use crate::error::ContentError;

/// How often in a row a host is tried when it fails in a way that may pass.
const ATTEMPTS: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// Longest wait that a host may ask for.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Longest cause that is shown.
const MAX_CAUSE: usize = 400;

/// One host's failure.
pub(super) struct Failure {
    /// Why; no text of a registry's is in it unless it was made harmless.
    pub(super) cause: String,
    /// The host answered: the image is not there, or not for us.
    pub(super) absent: bool,
    /// Trying again may help.
    pub(super) passing: bool,
    /// No connection came about.
    pub(super) unreachable: bool,
    /// How long the host asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// Of the connection: it may work the next time.
    pub(super) fn transport(error: reqwest::Error) -> Self {
        // URLs of redirects have signatures in them that are as good as passwords.
        let (passing, unreachable) = (!error.is_builder(), error.is_connect());
        Self { passing, unreachable, ..Self::lasting(chain(&error.without_url())) }
    }

    /// The host does something that it should not.
    pub(super) fn lasting(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), absent: false, passing: false, unreachable: false, retry_after: None }
    }

    /// The host does not let us.
    pub(super) fn denied(cause: impl Into<String>) -> Self {
        Self { absent: true, ..Self::lasting(cause) }
    }

    /// By the status of an answer.
    pub(super) fn status(status: u16, retry_after: Option<Duration>, cause: String) -> Self {
        let passing = status == 429 || status >= 500;
        Self { absent: matches!(status, 401 | 403 | 404), passing, retry_after, ..Self::lasting(cause) }
    }
}

/// How one request ended.
pub(super) enum Ended {
    Failed(Failure),
    Refused(ContentError),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Waits that grow, and end.
pub(super) struct Backoff {
    left: u32,
    wait: Duration,
    insists: bool,
}

impl Backoff {
    /// Only the last host is waited for when it cannot be reached: a mirror that is down costs one attempt.
    pub(super) fn new(is_last: bool) -> Self {
        Self { left: ATTEMPTS.saturating_sub(1), wait: FIRST_WAIT, insists: is_last }
    }

    /// How long to wait before the next attempt, if there is to be one.
    pub(super) fn next(&mut self, failure: &Failure) -> Option<Duration> {
        let worth_it = failure.passing && (self.insists || !failure.unreachable);
        self.left = self.left.checked_sub(1).filter(|_| worth_it)?;
        // Many that failed at once shall not come back at once.
        let wait = self.wait.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.wait = self.wait.saturating_mul(3).min(MAX_WAIT);
        Some(failure.retry_after.map_or(wait, |asked| asked.min(MAX_WAIT).max(wait)))
    }
}

/// An error with its causes: reqwest's own text says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    harmless(&text)
}

/// Text of a stranger's for a terminal or a log.
pub(super) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_CAUSE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_and_are_never_longer_than_promised() {
        let failure = |retry_after| Failure::status(429, retry_after, String::new());
        let mut backoff = Backoff::new(true);
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(&failure(None))).collect();
        assert_eq!(waits.len(), 3);
        assert!(waits.is_sorted() && waits[0] >= FIRST_WAIT / 2, "{waits:?}");
        let asked = |seconds| Backoff::new(true).next(&failure(Some(Duration::from_secs(seconds)))).unwrap();
        assert_eq!((asked(7), asked(1_000_000)), (Duration::from_secs(7), MAX_WAIT));
        assert!(asked(0) >= FIRST_WAIT / 2);
        assert_eq!(Backoff::new(true).next(&Failure::lasting("")), None);
        let unreachable = Failure { unreachable: true, ..failure(None) };
        assert!(Backoff::new(true).next(&unreachable).is_some() && Backoff::new(false).next(&unreachable).is_none());
    }
}
