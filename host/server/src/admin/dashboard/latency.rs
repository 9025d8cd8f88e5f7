//! Percentiles of the time that requests take.
//!
//! The histogram of the metrics has few buckets, each four times as wide as the one before. These buckets are an eighth
//! of an octave wide, so a percentile is exact to 6 %.

use millpond::ledger::{Observer, Outcome};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets for each power of two.
const STEPS: usize = 8;

/// Powers of two, in microseconds: up to 71 minutes. Longer requests count in the last bucket.
const OCTAVES: usize = 32;

const BUCKETS: usize = OCTAVES * STEPS;

/// Number of samples that percentiles cover. One second often has too few requests.
const PERCENTILE_SAMPLES: usize = 10;

/// Percentiles that are shown.
const PERCENTILES: [u64; 3] = [50, 90, 99];

/// Memory of the percentiles, in bytes.
pub(super) const LATENCY_BYTES: usize = (PERCENTILE_SAMPLES + 1) * size_of::<[u64; BUCKETS]>();

/// Numbers of ended requests by duration.
#[derive(Debug)]
pub(super) struct DurationCounts([AtomicU64; BUCKETS]);

impl Default for DurationCounts {
    fn default() -> Self {
        DurationCounts(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Observer for DurationCounts {
    fn on_request_end(&self, _: Outcome, duration: Duration, _: usize) {
        self.0[bucket(duration)].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts at the last samples.
#[derive(Debug)]
pub(super) struct LatencyWindow {
    past: VecDeque<[u64; BUCKETS]>,
}

impl Default for LatencyWindow {
    fn default() -> Self {
        LatencyWindow {
            past: VecDeque::with_capacity(PERCENTILE_SAMPLES),
        }
    }
}

impl LatencyWindow {
    /// Returns the 50th, 90th and 99th percentile of the requests that ended within the last samples, in microseconds.
    /// `None` if no request has.
    pub(super) fn percentiles(&mut self, counts: &DurationCounts) -> Option<[u64; 3]> {
        let now = std::array::from_fn(|place| counts.0[place].load(Ordering::Relaxed));
        let oldest = match self.past.len() {
            PERCENTILE_SAMPLES => self.past.pop_front(),
            _ => self.past.front().copied(),
        };
        self.past.push_back(now);
        let oldest = oldest.unwrap_or([0; BUCKETS]);
        let ended: [u64; BUCKETS] = std::array::from_fn(|place| now[place] - oldest[place]);
        percentiles(&ended)
    }
}

fn percentiles(ended: &[u64; BUCKETS]) -> Option<[u64; 3]> {
    let total: u64 = ended.iter().sum();
    if total == 0 {
        return None;
    }
    Some(PERCENTILES.map(|percent| {
        let rank = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let place = ended.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        middle_us(place.unwrap_or(BUCKETS - 1))
    }))
}

/// Bucket of a duration. The first ones are one microsecond wide.
fn bucket(duration: Duration) -> usize {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let Some(octave) = us.checked_ilog2().map(|octave| octave as usize) else {
        return 0;
    };
    // The three bits behind the first one.
    let step = match octave.checked_sub(3) {
        Some(shift) => (us >> shift) as usize % STEPS,
        None => (us << (3 - octave)) as usize % STEPS,
    };
    (octave * STEPS + step).min(BUCKETS - 1)
}

/// Middle of a bucket, in microseconds.
fn middle_us(place: usize) -> u64 {
    let (octave, step) = (place / STEPS, (place % STEPS) as u64);
    // Sixteenths of the octave: the steps, and half a step.
    let sixteenths = 16 + 2 * step + 1;
    ((sixteenths << octave) / 16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_is_an_eighth_of_an_octave(us in 16..1_u64 << 32) {
            let middle = middle_us(bucket(Duration::from_micros(us)));
            prop_assert!(middle.abs_diff(us) <= us / 16 + 1, "{us} {middle}");
        }

        #[test]
        fn a_longer_duration_has_no_lower_bucket(a in any::<u64>(), b in any::<u64>()) {
            let of = |us| bucket(Duration::from_micros(us));
            prop_assert!(of(a.min(b)) <= of(a.max(b)));
        }
    }

    #[test]
    fn percentiles_are_of_the_last_samples() {
        let counts = DurationCounts::default();
        let mut window = LatencyWindow::default();
        assert_eq!(window.percentiles(&counts), None);
        let end = |us| counts.on_request_end(Outcome::Completed, Duration::from_micros(us), 0);
        (0..90).for_each(|_| end(1000));
        (0..9).for_each(|_| end(50_000));
        end(2_000_000);
        let [p50, p90, p99] = window.percentiles(&counts).unwrap_or_default();
        assert!((940..=1060).contains(&p50) && p90 == p50, "{p50} {p90}");
        assert!((47_000..=53_000).contains(&p99), "{p99}");
        for _ in 0..PERCENTILE_SAMPLES {
            let _ = window.percentiles(&counts);
        }
        assert_eq!(window.percentiles(&counts), None, "they are too long ago");
        end(7);
        assert_eq!(window.percentiles(&counts), Some([7; 3]));
    }
}
