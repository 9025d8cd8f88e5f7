//! Statistics of several rounds: the median, the least and the most.

use serde::Serialize;

/// A median between the least and the most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// None of nothing. Of an even count, the median is the mean of the two in the middle.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Spread {
            median,
            least,
            most,
        })
    }

    /// How the ones compare with the others, round by round: what slows a round down slows both, and goes out of the
    /// ratio. Rounds that either of them has not are left out.
    pub(crate) fn of_ratios(ones: &[f64], others: &[f64]) -> Option<Self> {
        Spread::of(ones.iter().zip(others).map(|(one, other)| one / other))
    }
}

/// Order of the servers in a round. Each round begins with the next server, so that none is always first, or always after
/// the same one.
pub(crate) fn rotation(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + round) % count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(Spread::of([]), None);
        let spread = |median, least, most| {
            Some(Spread {
                median,
                least,
                most,
            })
        };
        assert_eq!(Spread::of([2.0]), spread(2.0, 2.0, 2.0));
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), spread(2.0, 1.0, 9.0));
        assert_eq!(Spread::of([9.0, 1.0, 2.0, 4.0]), spread(3.0, 1.0, 9.0));
    }

    /// The second round was twice as slow for both.
    #[test]
    fn ratios_are_of_the_same_round() {
        let found = Spread::of_ratios(&[30.0, 15.0, 40.0], &[10.0, 5.0, 10.0, 7.0]).unwrap();
        assert_eq!((found.median, found.least, found.most), (3.0, 3.0, 4.0));
        assert_eq!(Spread::of_ratios(&[], &[1.0]), None);
    }

    #[test]
    fn each_round_has_all_and_begins_with_the_next() {
        let rounds: Vec<Vec<usize>> = (0..4).map(|round| rotation(3, round).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }
}
