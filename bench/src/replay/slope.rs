//! How fast a figure grows: the straight line that fits its samples best, and how sure that is.

use serde::Serialize;

/// The slope of a fitted line, and its standard error.
///
/// The error assumes that the samples are independent. Samples of a process's memory are not quite, since each starts from
/// the one before. The error is therefore a lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Slope {
    pub(crate) per_minute: f64,
    pub(crate) error: f64,
}

/// Fits a line by ordinary least squares to points of seconds and value. `None` where there is no telling:
/// fewer than three points, or all at the same time.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<Slope> {
    if points.len() < 3 {
        return None;
    }
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if spread == 0.0 {
        return None;
    }
    let together: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let per_second = together / spread;
    let residuals: f64 = points
        .iter()
        .map(|(x, y)| (y - mean_y - per_second * (x - mean_x)).powi(2))
        .sum();
    let error = (residuals / (count - 2.0) / spread).sqrt();
    Some(Slope {
        per_minute: per_second * 60.0,
        error: error * 60.0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_straight_line_has_its_slope_and_no_error() {
        let points: Vec<_> = (0..10)
            .map(|i| (f64::from(i), 7.0 + 2.0 * f64::from(i)))
            .collect();
        let found = slope(&points).unwrap();
        assert!((found.per_minute - 120.0).abs() < 1e-9, "{found:?}");
        assert!(found.error < 1e-9, "{found:?}");
    }

    /// Means 2 and 2.4; spread 10; slope 5/10 a second; squared residuals 2.7; error √(2.7 / 3 / 10) = 0.3.
    #[test]
    fn scattered_points_have_the_slope_and_error_worked_by_hand() {
        let points = [(0.0, 1.0), (1.0, 3.0), (2.0, 2.0), (3.0, 2.0), (4.0, 4.0)];
        let found = slope(&points).unwrap();
        assert!((found.per_minute - 30.0).abs() < 1e-9, "{found:?}");
        assert!((found.error - 18.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn too_few_points_have_no_slope() {
        assert_eq!(slope(&[]), None);
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
