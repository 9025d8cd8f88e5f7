//! Trend of a figure over time: its slope, robust against outliers, and its shape.

use serde::Serialize;
use std::time::Duration;

/// Trend of a figure over a window of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Trend {
    /// Slope in bytes per minute: the median of the slopes between all pairs of samples (Theil–Sen estimator).
    pub slope_bytes_per_minute: i64,
    /// Shape of the figure's curve.
    pub shape: Shape,
}

/// Shape of a figure's curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Shape {
    /// Constant, within the noise.
    Flat,
    /// Repeated growth and decline.
    Sawtooth,
    /// Steady growth or decline.
    Linear,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Shape::Flat => "flat",
            Shape::Sawtooth => "sawtooth",
            Shape::Linear => "linear",
        })
    }
}

/// Maximum change over the window that counts as constant, in bytes. Allocators round up by about as much.
const STILL_BYTES: f64 = 256.0 * 1024.0;

impl Trend {
    /// Returns the trend of `samples` taken at intervals of `distance`.
    pub(super) fn of(samples: &[i64], distance: Duration) -> Self {
        let values: Vec<f64> = samples.iter().map(|sample| *sample as f64).collect();
        let slope = slope(&values);
        let per_minute = slope * 60.0 / distance.as_secs_f64().max(f64::MIN_POSITIVE);
        Trend {
            slope_bytes_per_minute: per_minute as i64,
            shape: shape(&values, slope),
        }
    }
}

/// Median of the slopes between all pairs of values, per step.
fn slope(values: &[f64]) -> f64 {
    let mut slopes = Vec::with_capacity(values.len() * values.len().saturating_sub(1) / 2);
    for (from, first) in values.iter().enumerate() {
        for (steps, second) in values[from + 1..].iter().enumerate() {
            slopes.push((second - first) / (steps + 1) as f64);
        }
    }
    median(&mut slopes)
}

fn shape(values: &[f64], slope: f64) -> Shape {
    let rise = slope * values.len().saturating_sub(1) as f64;
    let mut levels: Vec<f64> = (0_u32..)
        .zip(values)
        .map(|(step, value)| value - slope * f64::from(step))
        .collect();
    let level = median(&mut levels.clone());
    levels
        .iter_mut()
        .for_each(|value| *value = (*value - level).abs());
    let spread = median(&mut levels);
    // A peak in between ends where it began.
    let third = values.len() / 3;
    let gained = median(&mut values[values.len() - third..].to_vec())
        - median(&mut values[..third].to_vec());
    let keeps = gained * rise.signum() > rise.abs() / 2.0;
    if rise.abs() > STILL_BYTES && rise.abs() > 4.0 * spread && keeps {
        return Shape::Linear;
    }
    let (low, high) = values
        .iter()
        .fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(*value), high.max(*value))
        });
    if high - low > 4.0 * STILL_BYTES {
        Shape::Sawtooth
    } else {
        Shape::Flat
    }
}

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    *median
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MB: i64 = 1_000_000;

    #[test]
    fn slopes_and_shapes() {
        let line: Vec<i64> = (0..60).map(|second| 500 * MB + second * MB).collect();
        let trend = Trend::of(&line, SECOND);
        assert_eq!(
            (trend.slope_bytes_per_minute, trend.shape),
            (60 * MB, Shape::Linear)
        );

        let mut with_outliers = line;
        (with_outliers[10], with_outliers[40]) = (9000 * MB, 0);
        let trend = Trend::of(&with_outliers, SECOND);
        assert_eq!(
            (trend.slope_bytes_per_minute, trend.shape),
            (60 * MB, Shape::Linear)
        );

        let still: Vec<i64> = (0..60).map(|second| 500 * MB + second % 3 * 1000).collect();
        assert_eq!(Trend::of(&still, SECOND).shape, Shape::Flat);

        let teeth: Vec<i64> = (0..60)
            .map(|second| 500 * MB + second % 10 * 20 * MB)
            .collect();
        assert_eq!(Trend::of(&teeth, SECOND).shape, Shape::Sawtooth);
    }

    /// The table of the original's report (row S1): 10 GB in 27 minutes.
    #[test]
    fn seed_s1_what_the_original_saw_is_a_line() {
        let megabytes = [16998, 18655, 20358, 22000, 23746, 25459, 27232];
        let trend = Trend::of(
            &megabytes.map(|sample| sample * MB),
            Duration::from_secs(270),
        );
        assert_eq!(trend.shape, Shape::Linear);
        let per_minute = trend.slope_bytes_per_minute / MB;
        assert!((360..400).contains(&per_minute), "{per_minute}");
    }

    proptest! {
        #[test]
        fn no_samples_panic(samples in proptest::collection::vec(any::<i64>(), 0..70)) {
            let _ = Trend::of(&samples, SECOND);
        }
    }
}
