//! Memory monitor: samples the process's memory, and warns in the log when it grows.
//!
//! The monitor compares the kernel, the allocator and the ledgers once a second. Unattributed memory should stay as at
//! the start, and leaked memory should be zero. Growth of either is a leak, and the warning names the routes that cause
//! it.

mod leak_detector;
mod sample;
mod trend;

pub use sample::{Growth, Sample};
pub use trend::{Shape, Trend};

use crate::heap;
use crate::kind::MemoryDomain;
use crate::process;
use crate::registry::LedgerRegistry;
use leak_detector::LeakDetector;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// A running memory monitor. Clones share it.
#[derive(Debug, Clone)]
pub struct Monitor {
    last: Arc<Mutex<Sample>>,
}

/// Number of samples in a trend.
const WINDOW: usize = 60;

impl Monitor {
    /// Starts the monitor as a task of the current tokio runtime. It ends with the runtime.
    ///
    /// The process's current memory becomes the baseline, so call this before the first request. `period` is the
    /// interval between two samples, usually a second.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
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
                let mut sample = sampler.sample();
                let routes = sampler.sources.registry().routes();
                sampler.detector.evaluate(&sample, routes);
                sample.growth = sampler.detector.growth();
                *last.lock() = sample;
            }
        });
        monitor
    }

    /// Returns the latest sample.
    #[must_use]
    pub fn last(&self) -> Sample {
        self.last.lock().clone()
    }
}

/// Source of the figures that a [`Monitor`] samples. `Millpond` and `millpond_server::Server` implement it.
pub trait MemorySources: Send + 'static {
    /// Registry of the ledgers.
    fn registry(&self) -> &LedgerRegistry;

    /// Heap memory of the caches, in bytes.
    fn cached_bytes(&self) -> usize;

    /// Kernel memory of the open connections, in bytes.
    fn socket_bytes(&self) -> usize;

    /// Memory that may become unattributed with the first traffic and then stays, in bytes: threads, queues, tables.
    fn warm_up_bytes(&self) -> usize;
}

struct Sampler<S> {
    sources: S,
    /// Unattributed memory at the start.
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
        let heap = heap::installed().map(heap::Heap::stats);
        let snapshot = self.sources.registry().snapshot();
        // Without allocator statistics, the process's anonymous memory takes their place. It includes the pool.
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
            growth: None,
        }
    }
}
