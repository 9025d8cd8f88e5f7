//! When each request is due.

use std::time::Duration;

/// So many requests, at a rate or as fast as they are answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Requests a second; none where each is due as soon as there is a connection for it.
    pub(crate) rate: Option<f64>,
    /// Requests in all.
    pub(crate) requests: u64,
}

impl Schedule {
    /// When a request is due, from the start; `now` where it is due whenever it can be sent. None beyond the last.
    pub(crate) fn due(&self, number: u64, now: Duration) -> Option<Duration> {
        if number >= self.requests {
            return None;
        }
        // Not added up from one request to the next: errors would add up too.
        Some(
            self.rate
                .map_or(now, |rate| Duration::from_secs_f64(number as f64 / rate)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_rate_requests_are_due_whatever_the_time_is() {
        let schedule = Schedule {
            rate: Some(20_000.0),
            requests: 40_001,
        };
        let late = Duration::from_secs(9);
        assert_eq!(schedule.due(0, late), Some(Duration::ZERO));
        assert_eq!(schedule.due(1, late), Some(Duration::from_micros(50)));
        assert_eq!(schedule.due(40_000, late), Some(Duration::from_secs(2)));
        assert_eq!(schedule.due(40_001, late), None);
    }

    #[test]
    fn without_a_rate_requests_are_due_at_once() {
        let schedule = Schedule {
            rate: None,
            requests: 2,
        };
        let now = Duration::from_millis(7);
        assert_eq!(schedule.due(1, now), Some(now));
        assert_eq!(schedule.due(2, now), None);
    }
}
