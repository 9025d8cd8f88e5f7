//! Leak detector: logs one warning when memory starts to grow, and one message when it has stopped.

use super::sample::{Growth, Sample};
use super::trend::{Shape, Trend};
use crate::kind::Kind;
use crate::route::Route;
use bytesize::ByteSize;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// Window of time over which points are compared, and the growth that counts as a leak.
struct TrendWindow {
    /// Number of samples per point.
    every: usize,
    /// Minimum number of points for a warning. Growth over fewer is a burst.
    min_points: usize,
    /// Minimum growth for a warning.
    growth_bytes_per_minute: i64,
}

/// A minute, for fast growth, and an hour, for slow growth.
const WINDOWS: [TrendWindow; 2] = [
    TrendWindow {
        every: 1,
        min_points: 40,
        growth_bytes_per_minute: 1024 * 1024,
    },
    TrendWindow {
        every: 60,
        min_points: 30,
        growth_bytes_per_minute: 64 * 1024,
    },
];

/// Number of points in a window.
const TREND_POINTS: usize = 60;

/// Minimum leaked memory for a warning, in bytes. The last chunk of each connection may still be in flight.
const LEAKED_BYTES: usize = 64 * 1024;

/// Number of samples without growth after which the growth counts as over.
const QUIET_SAMPLES: usize = 15;

/// Minimum heap growth per request for a route to be named, in bytes. The buffers of a connection come to less.
const SUSPECT_BYTES_PER_REQUEST: i64 = 512;

/// Detects growth in a series of samples.
pub(super) struct LeakDetector {
    period: Duration,
    /// Memory that becomes unattributed with the first traffic and then stays: threads, queues, tables. Growth up to
    /// this is no leak.
    warm_up_bytes: i64,
    looks: usize,
    past: [VecDeque<TrendPoint>; WINDOWS.len()],
    ongoing: Option<OngoingGrowth>,
}

/// A sample, reduced to what a window compares.
#[derive(Clone)]
struct TrendPoint {
    at: SystemTime,
    /// Allocated memory that no ledger accounts for.
    unattributed_bytes: i64,
    /// Memory charged to ended requests.
    leaked_bytes: i64,
    /// Heap growth and number of requests so far, by route.
    routes: HashMap<Arc<str>, (i64, u64)>,
}

struct OngoingGrowth {
    growth: Growth,
    quiet_samples: usize,
}

impl LeakDetector {
    pub(super) fn new(period: Duration, warm_up_bytes: usize) -> Self {
        LeakDetector {
            period,
            warm_up_bytes: i64::try_from(warm_up_bytes).unwrap_or(i64::MAX),
            looks: 0,
            past: WINDOWS.map(|_| VecDeque::with_capacity(TREND_POINTS)),
            ongoing: None,
        }
    }

    /// Adds a sample, and logs an alert if there is one.
    pub(super) fn evaluate(&mut self, sample: &Sample, routes: Vec<Arc<Route>>) {
        match self.check(sample, routes) {
            Some(Alert::Grows(message)) => tracing::warn!(target: "millpond::monitor", "{message}"),
            Some(Alert::Stopped(message)) => {
                tracing::info!(target: "millpond::monitor", "{message}");
            }
            None => {}
        }
    }

    /// The growth that goes on, with the warning as of the last sample that grew.
    pub(super) fn growth(&self) -> Option<Growth> {
        let ongoing = self.ongoing.as_ref();
        ongoing.map(|ongoing| ongoing.growth.clone())
    }

    fn check(&mut self, sample: &Sample, routes: Vec<Arc<Route>>) -> Option<Alert> {
        self.push(TrendPoint {
            at: SystemTime::now(),
            unattributed_bytes: sample.unattributed_bytes,
            leaked_bytes: sample.snapshot.leaked.total() as i64,
            routes: routes
                .into_iter()
                .map(|route| {
                    let left = route.heap_growth_bytes.load(Ordering::Relaxed);
                    let requests = route.requests.load(Ordering::Relaxed);
                    (Arc::clone(&route.pattern), (left, requests))
                })
                .collect(),
        });
        let is_warmed_up = sample.unattributed_bytes > self.warm_up_bytes;
        let holds_leaked = sample.snapshot.leaked.total() >= LEAKED_BYTES;
        let began = self.ongoing.as_ref().map(|ongoing| ongoing.growth.since);
        let growth = WINDOWS.iter().zip(&self.past).find_map(|(window, past)| {
            let unattributed = self.trend(window, past, |point| point.unattributed_bytes)?;
            let leaked = self.trend(window, past, |point| point.leaked_bytes)?;
            let grows = |trend: &Trend| {
                trend.shape == Shape::Linear
                    && trend.slope_bytes_per_minute >= window.growth_bytes_per_minute
            };
            let since = began.unwrap_or(past.front()?.at);
            if holds_leaked && grows(&leaked) {
                let message = leak_message(sample, &leaked, &unattributed, since);
                Some((since, message))
            } else if is_warmed_up && grows(&unattributed) {
                Some((since, unattributed_message(past, &unattributed, since)))
            } else {
                None
            }
        });
        let Some((since, message)) = growth else {
            return self.check_recovery();
        };
        if let Some(ongoing) = &mut self.ongoing {
            ongoing.quiet_samples = 0;
            ongoing.growth.message = message;
            return None;
        }
        let growth = Growth {
            since,
            message: message.clone(),
        };
        self.ongoing = Some(OngoingGrowth {
            growth,
            quiet_samples: 0,
        });
        Some(Alert::Grows(message))
    }

    fn push(&mut self, point: TrendPoint) {
        for (window, past) in WINDOWS.iter().zip(&mut self.past) {
            if self.looks.is_multiple_of(window.every) {
                if past.len() == TREND_POINTS {
                    past.pop_front();
                }
                past.push_back(point.clone());
            }
        }
        self.looks += 1;
    }

    /// Returns the trend over a window, if it has enough points.
    fn trend(
        &self,
        window: &TrendWindow,
        past: &VecDeque<TrendPoint>,
        figure: impl Fn(&TrendPoint) -> i64,
    ) -> Option<Trend> {
        let figures: Vec<i64> = past.iter().map(figure).collect();
        let distance = self.period * u32::try_from(window.every).unwrap_or(u32::MAX);
        (figures.len() >= window.min_points).then(|| Trend::of(&figures, distance))
    }

    fn check_recovery(&mut self) -> Option<Alert> {
        let ongoing = self.ongoing.as_mut()?;
        ongoing.quiet_samples += 1;
        if ongoing.quiet_samples < QUIET_SAMPLES {
            return None;
        }
        let message = format!(
            "memory has stopped growing, it had grown since {}",
            clock(ongoing.growth.since)
        );
        self.ongoing = None;
        Some(Alert::Stopped(message))
    }
}

/// Message about unattributed memory. Names the routes whose requests left most on the heap.
fn unattributed_message(past: &VecDeque<TrendPoint>, trend: &Trend, since: SystemTime) -> String {
    let mut message = growth_message(trend, 100, since);
    let (Some(first), Some(last)) = (past.front(), past.back()) else {
        return message;
    };
    let mut suspects: Vec<(&str, i64, i64)> = last
        .routes
        .iter()
        .filter_map(|(pattern, (left, requests))| {
            let (left_before, requests_before) =
                first.routes.get(pattern).copied().unwrap_or_default();
            let requests = i64::try_from(requests - requests_before).unwrap_or(i64::MAX);
            let left = left - left_before;
            (left >= SUSPECT_BYTES_PER_REQUEST * requests.max(1))
                .then_some((&**pattern, left, requests))
        })
        .collect();
    suspects.sort_unstable_by_key(|(_, left, _)| -left);
    if suspects.is_empty() {
        message += "; not allocated by a request";
    }
    for (pattern, left, requests) in suspects.iter().take(3) {
        let each = left / (*requests).max(1);
        let _ = write!(
            message,
            "; route {pattern}: {requests} requests left {} each on the heap outside their ledgers",
            readable(each)
        );
    }
    message
}

/// Message about leaked memory. Names the routes of the ended requests, with the kinds of memory.
fn leak_message(
    sample: &Sample,
    leaked: &Trend,
    unattributed: &Trend,
    since: SystemTime,
) -> String {
    let share = |part: i64| {
        let whole = leaked.slope_bytes_per_minute + unattributed.slope_bytes_per_minute.max(0);
        (100 * part.max(0)).checked_div(whole).unwrap_or(0)
    };
    let mut message = growth_message(leaked, share(unattributed.slope_bytes_per_minute), since);
    let mut leaks: Vec<_> = sample.snapshot.leaks.iter().collect();
    leaks.sort_unstable_by_key(|(_, leak)| std::cmp::Reverse(leak.held.total()));
    for (pattern, leak) in leaks.into_iter().take(3) {
        let mut kinds: Vec<(Kind, usize)> = leak.held.iter().collect();
        kinds.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let kinds: Vec<String> = kinds
            .iter()
            .take(4)
            .map(|(kind, bytes)| format!("{kind} {}", readable(*bytes as i64)))
            .collect();
        let _ = write!(
            message,
            "; route {pattern}: {} ended requests leaked {} each ({})",
            leak.requests,
            readable((leak.held.total() / leak.requests) as i64),
            kinds.join(", ")
        );
    }
    message
}

fn growth_message(trend: &Trend, unattributed_percent: i64, since: SystemTime) -> String {
    format!(
        "memory grows {}/min, {}, {unattributed_percent} % unattributed, since {}",
        readable(trend.slope_bytes_per_minute),
        trend.shape,
        clock(since)
    )
}

enum Alert {
    Grows(String),
    Stopped(String),
}

fn readable(bytes: i64) -> String {
    ByteSize(bytes.unsigned_abs()).display().si().to_string()
}

/// Time of day in UTC.
fn clock(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.get(11..20).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::process::ProcessMemory;
    use crate::snapshot::Snapshot;

    fn sample(unattributed_bytes: i64) -> Sample {
        Sample {
            process: ProcessMemory::default(),
            heap: None,
            socket_bytes: 0,
            snapshot: Snapshot::default(),
            unattributed_bytes,
            trend: Trend::of(&[], Duration::from_secs(1)),
            growth: None,
        }
    }

    const WARM_UP_BYTES: usize = 11 << 20;

    fn detector() -> LeakDetector {
        LeakDetector::new(Duration::from_secs(1), WARM_UP_BYTES)
    }

    /// Returns the second of the first warning, for a process with this much unattributed memory in each second.
    fn said(seconds: i64, bytes: impl Fn(i64) -> i64) -> Option<i64> {
        let mut detector = detector();
        (0..seconds).find(|second| {
            let alert = detector.check(&sample(bytes(*second)), Vec::new());
            matches!(alert, Some(Alert::Grows(_)))
        })
    }

    /// The monitor once warned of growth a minute after the first traffic.
    #[test]
    fn a_process_that_warms_up_does_not_grow() {
        const MOST: i64 = WARM_UP_BYTES as i64;
        for (most, start) in [(1_500_000, 0), (MOST, 0), (MOST, 45)] {
            let since = |second: i64| (second - start).max(0);
            // Linear over a minute, ever slower, and in steps.
            let line = |second: i64| most.min(since(second) * most / 60);
            let slower = |second: i64| most * since(second) / (since(second) + 20);
            let steps = |second: i64| most * (since(second) / 10).min(6) / 6;
            assert_eq!(said(150, line), None);
            assert_eq!(said(150, slower), None);
            assert_eq!(said(150, steps), None);
        }
        // Linear over most of an hour.
        assert_eq!(said(2400, |second| MOST.min(second * MOST / 2200)), None);
    }

    /// The original leaked 340 MB a minute, which is detected within a minute. Slower leaks are detected as soon as
    /// they exceed the warm-up.
    #[test]
    fn a_leak_is_said_while_it_is_young() {
        const MB: i64 = 1_000_000;
        for (bytes_per_minute, within) in
            [(340 * MB, 60), (30 * MB, 60), (10 * MB, 90), (2 * MB, 400)]
        {
            for warmed_up in [0, 6 * MB] {
                let leak =
                    |second: i64| warmed_up.min(second * MB) + second * bytes_per_minute / 60;
                let said = said(within + 1, leak);
                assert!(
                    said.is_some_and(|second| second <= within),
                    "{bytes_per_minute} {said:?}"
                );
            }
        }
    }

    #[test]
    fn growth_is_said_once_and_its_end_once() {
        let mut detector = detector();
        let mut said = Vec::new();
        let mut see = |bytes| match detector.check(&sample(bytes), Vec::new()) {
            Some(Alert::Grows(message)) => said.push(message),
            Some(Alert::Stopped(message)) => said.push(message),
            None => {}
        };
        (0..30).for_each(|_| see(0));
        (0..60).for_each(|second| see(second * 1_000_000));
        (0..120).for_each(|_| see(60_000_000));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("memory grows") && said[0].contains("100 % unattributed"));
        assert!(said[1].starts_with("memory has stopped growing"));
    }

    #[test]
    fn growth_keeps_its_beginning_and_its_warning_is_of_the_last_sample() {
        let mut detector = detector();
        let mut grow = |second: i64, speed: i64| {
            detector.check(&sample(second * speed), Vec::new());
            detector.growth()
        };
        let first = (0..60).find_map(|second| grow(second, 1_000_000)).unwrap();
        let last = (60..180)
            .filter_map(|second| grow(second, 2_000_000))
            .last();
        let last = last.unwrap();
        assert_eq!(last.since, first.since);
        assert!(first.message.contains("60.0 MB/min"), "{}", first.message);
        assert!(last.message.contains("120.0 MB/min"), "{}", last.message);
    }

    #[test]
    fn what_grows_slowly_is_said_within_the_hour() {
        let mut detector = detector();
        // 200 kB a minute, which is too little for the window of a minute.
        let said = (0..3600).find(|second| {
            let alert = detector.check(&sample(second * 200_000 / 60), Vec::new());
            matches!(alert, Some(Alert::Grows(_)))
        });
        assert!(said.is_some_and(|second| second >= 1740), "{said:?}");
    }

    #[test]
    fn a_sawtooth_says_nothing() {
        let mut detector = detector();
        for second in 0..300 {
            let alert = detector.check(&sample(second % 20 * 5_000_000), Vec::new());
            assert!(alert.is_none(), "{second}");
        }
    }
}
