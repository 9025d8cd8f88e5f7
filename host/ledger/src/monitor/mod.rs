//! Watches the process's memory, and says in words when it grows, how, and who holds what grows.
//!
//! Each second it looks at what the kernel, the allocator and the ledgers say. What the allocator has given out and
//! no ledger explains should stay as it was at the start; what is held for requests that have ended should be
//! nothing. When either grows, there is a leak, and the watch names it while it is young.

mod leak_detector;
mod sample;
mod trend;

pub use sample::Sample;
pub use trend::{Shape, Trend};

use crate::heap;
use crate::kind::MemoryDomain;
use crate::process;
use crate::registry::LedgerRegistry;
use leak_detector::LeakDetector;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// A running watch.
#[derive(Debug, Clone)]
pub struct Monitor {
    last: Arc<Mutex<Sample>>,
}

/// Looks that a trend is made of.
const WINDOW: usize = 60;

impl Monitor {
    /// Begins to watch, on the current runtime, for as long as that runs. What the process has now is taken for what
    /// it has without a request. It looks once in each `period`, a second as a rule.
    #[must_use]
    pub fn start(sources: impl MemorySources, period: Duration) -> Self {
        let mut sampler = Sampler::new(sources, period);
        let monitor = Monitor {
            last: Arc::new(Mutex::new(sampler.sample())),
        };
        let last = Arc::clone(&monitor.last);
        tokio::spawn(async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let sample = sampler.sample();
                let routes = sampler.sources.registry().routes();
                sampler.detector.evaluate(&sample, routes);
                *last.lock().unwrap_or_else(PoisonError::into_inner) = sample;
            }
        });
        monitor
    }

    /// What was seen last, at most a second ago.
    #[must_use]
    pub fn last(&self) -> Sample {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The program that a monitor watches, as far as the monitor asks about it.
pub trait MemorySources: Send + 'static {
    /// The accounts of all requests and connections.
    fn registry(&self) -> &LedgerRegistry;

    /// Bytes on the heap that are cached between requests.
    fn cached_bytes(&self) -> usize;

    /// Bytes that the kernel holds for open connections.
    fn socket_bytes(&self) -> usize;

    /// Bytes that may come to be unattributed at first traffic and then stay: threads, queues, tables.
    fn warm_up_bytes(&self) -> usize;
}

struct Sampler<S> {
    sources: S,
    /// What was allocated and not explained at the start.
    baseline_bytes: i64,
    unattributed: VecDeque<i64>,
    detector: LeakDetector,
    period: Duration,
}

impl<S: MemorySources> Sampler<S> {
    fn new(sources: S, period: Duration) -> Self {
        let warm_up_bytes = sources.warm_up_bytes();
        let mut sampler = Sampler {
            sources,
            baseline_bytes: 0,
            unattributed: VecDeque::with_capacity(WINDOW),
            detector: LeakDetector::new(period, warm_up_bytes),
            period,
        };
        sampler.baseline_bytes = sampler.sample().unattributed_bytes;
        sampler.unattributed.clear();
        sampler
    }

    fn sample(&mut self) -> Sample {
        let socket_bytes = self.sources.socket_bytes();
        let process = process::current_memory();
        let heap = heap::installed().map(heap::Heap::figures);
        let snapshot = self.sources.registry().snapshot();
        // Without an allocator's figures, what the process has of its own stands for them, the pool included.
        let held_bytes = heap.map_or(process.anonymous_bytes, |heap| heap.allocated_bytes);
        let attributed_bytes =
            snapshot.total().in_domain(MemoryDomain::Heap) + self.sources.cached_bytes();
        let unattributed_bytes = held_bytes as i64 - attributed_bytes as i64 - self.baseline_bytes;
        if self.unattributed.len() == WINDOW {
            self.unattributed.pop_front();
        }
        self.unattributed.push_back(unattributed_bytes);
        let trend = Trend::of(self.unattributed.make_contiguous(), self.period);
        Sample {
            process,
            heap,
            socket_bytes,
            snapshot,
            unattributed_bytes,
            trend,
        }
    }
}
