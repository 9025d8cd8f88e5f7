//! Figures of one second: memory at its end, and what happened in it.

use super::latency::{DurationCounts, LatencyWindow};
use millpond::ledger::{Kind, MemoryDomain, Outcome, RequestCount};
use millpond::monitor::Sample;
use millpond::{LedgerRegistry, Millpond};
use serde::Serialize;
use std::time::{Duration, Instant, SystemTime};

/// Figures of one second. A chart has one of these for each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct SecondFigures {
    /// Time, in milliseconds since the Unix epoch. It is that of the first second and the time since, so a clock that is
    /// set does not disturb the charts.
    at_ms: u64,
    /// Resident memory of the process and the kernel's memory for its sockets.
    held_bytes: usize,
    /// The part of the resident memory that is none of those below: program, threads, and pages that the allocator
    /// retains.
    fixed_bytes: usize,
    cache_bytes: usize,
    /// Memory of requests and connections, in the order of [`Kind::ALL`].
    kind_bytes: [usize; Kind::ALL.len()],
    unattributed_bytes: i64,
    socket_bytes: usize,
    /// Requests that ended, in the order of [`Outcome::ALL`].
    outcomes: [u64; Outcome::ALL.len()],
    /// Requests that ended, in the order of [`RequestCount::CODES`].
    codes: [u64; RequestCount::CODES.len()],
    /// 50th, 90th and 99th percentile of the last ten seconds.
    latency_us: Option<[u64; 3]>,
    /// Bytes of response bodies that were sent.
    sent_bytes: u64,
    cache_hits: u64,
}

/// Counters as of the last second.
#[derive(Debug)]
pub(super) struct FigureReader {
    begun: Instant,
    begun_ms: u64,
    last: Counters,
    latency: LatencyWindow,
}

/// Counters that only rise.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    outcomes: [u64; Outcome::ALL.len()],
    codes: [u64; RequestCount::CODES.len()],
    sent_bytes: u64,
    cache_hits: u64,
}

impl FigureReader {
    /// Returns a reader whose first second begins now, at `begun_ms` since the Unix epoch.
    pub(super) fn new(
        registry: &LedgerRegistry,
        durations: &DurationCounts,
        begun_ms: u64,
    ) -> Self {
        let mut reader = FigureReader {
            begun: Instant::now(),
            begun_ms,
            last: Counters::of(registry),
            latency: LatencyWindow::default(),
        };
        let _ = reader.latency.percentiles(durations);
        reader
    }

    /// Reads the figures since the last call.
    pub(super) fn read(
        &mut self,
        millpond: &Millpond,
        seen: &Sample,
        durations: &DurationCounts,
    ) -> SecondFigures {
        let now = Counters::of(millpond.registry());
        let last = std::mem::replace(&mut self.last, now);
        let total = seen.snapshot.total();
        let cache_bytes = millpond.cache_bytes().total();
        let resident_bytes = usize::try_from(seen.process.resident_bytes()).unwrap_or(usize::MAX);
        // The kernel's memory is not resident memory of the process.
        let ledger_bytes =
            total.in_domain(MemoryDomain::Heap) + total.in_domain(MemoryDomain::Pool);
        let unattributed_bytes = usize::try_from(seen.unattributed_bytes).unwrap_or(0);
        SecondFigures {
            at_ms: self.begun_ms + milliseconds(self.begun.elapsed()),
            held_bytes: resident_bytes.saturating_add(seen.socket_bytes),
            fixed_bytes: resident_bytes
                .saturating_sub(ledger_bytes)
                .saturating_sub(cache_bytes)
                .saturating_sub(unattributed_bytes),
            cache_bytes,
            kind_bytes: Kind::ALL.map(|kind| total.of(kind)),
            unattributed_bytes: seen.unattributed_bytes,
            socket_bytes: seen.socket_bytes,
            outcomes: std::array::from_fn(|place| now.outcomes[place] - last.outcomes[place]),
            codes: std::array::from_fn(|place| now.codes[place] - last.codes[place]),
            latency_us: self.latency.percentiles(durations),
            sent_bytes: now.sent_bytes - last.sent_bytes,
            cache_hits: now.cache_hits - last.cache_hits,
        }
    }
}

impl Counters {
    fn of(registry: &LedgerRegistry) -> Self {
        let mut counters = Counters {
            sent_bytes: registry.response_body_bytes(),
            cache_hits: registry.response_cache_hits(),
            ..Counters::default()
        };
        for counted in registry.request_counts() {
            counters.outcomes[counted.outcome as usize] += counted.count;
            let code = RequestCount::CODES
                .iter()
                .position(|code| *code == counted.code);
            if let Some(code) = code {
                counters.codes[code] += counted.count;
            }
        }
        counters
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, milliseconds)
}

#[cfg(test)]
impl SecondFigures {
    /// Figures of an idle process at that time.
    pub(super) fn at(at_ms: u64) -> Self {
        SecondFigures {
            at_ms,
            held_bytes: 0,
            fixed_bytes: 0,
            cache_bytes: 0,
            kind_bytes: [0; Kind::ALL.len()],
            unattributed_bytes: 0,
            socket_bytes: 0,
            outcomes: [0; Outcome::ALL.len()],
            codes: [0; RequestCount::CODES.len()],
            latency_us: None,
            sent_bytes: 0,
            cache_hits: 0,
        }
    }
}
