//! Counting a probe's results: only so many in a row change what is believed of a container.

use super::super::plan::Probe;

/// What follows from a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not enough in a row.
    Unchanged,
    Succeeds,
    Fails,
}

/// The results of one probe in one run of its container.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    in_a_row: u32,
}

impl Tally {
    pub(crate) fn of(probe: &Probe) -> Self {
        Self {
            success_threshold: probe.success_threshold,
            failure_threshold: probe.failure_threshold,
            last: None,
            in_a_row: 0,
        }
    }

    pub(crate) fn note(&mut self, success: bool) -> Verdict {
        self.in_a_row = if self.last == Some(success) { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = Some(success);
        match success {
            true if self.in_a_row >= self.success_threshold => Verdict::Succeeds,
            false if self.in_a_row >= self.failure_threshold => Verdict::Fails,
            _ => Verdict::Unchanged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Fails, Succeeds, Unchanged};

    #[test]
    fn only_results_in_a_row_count() {
        let mut tally = Tally { success_threshold: 2, failure_threshold: 3, last: None, in_a_row: 0 };
        let verdicts = [false, false, true, true, true, false, false, true, false, false, false]
            .map(|success| tally.note(success));
        assert_eq!(
            verdicts,
            [
                Unchanged, Unchanged, Unchanged, Succeeds, Succeeds, Unchanged, Unchanged, Unchanged, Unchanged,
                Unchanged, Fails
            ]
        );
    }
}
