//! A figure over all rounds.

use serde::Serialize;

/// Least, middle and greatest of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            *sorted.get(middle)?
        } else {
            f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, *sorted.get(middle)?)
        };
        Some(Self { least: *sorted.first()?, median, greatest: *sorted.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_of_an_even_number_of_values() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!(spread, Spread { least: 1.0, median: 2.5, greatest: 4.0 });
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
