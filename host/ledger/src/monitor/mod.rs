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
use crate::kind::Place;
use crate::process;
use crate::registry::Accounts;
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
        let mut watcher = Watcher::new(sources, period);
        let watch = Monitor {
            last: Arc::new(Mutex::new(watcher.look())),
        };
        let last = Arc::clone(&watch.last);
        tokio::spawn(async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let sighting = watcher.look();
                let routes = watcher.sources.accounts().routes();
                watcher.detector.evaluate(&sighting, routes);
                *last.lock().unwrap_or_else(PoisonError::into_inner) = sighting;
            }
        });
        watch
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
    fn accounts(&self) -> &Accounts;

    /// Bytes on the heap that are cached between requests.
    fn cached_bytes(&self) -> usize;

    /// Bytes that the kernel holds for open connections.
    fn socket_bytes(&self) -> usize;

    /// Bytes that may come to be unattributed at first traffic and then stay: threads, queues, tables.
    fn warm_up_bytes(&self) -> usize;
}

struct Watcher<S> {
    sources: S,
    /// What was allocated and not explained at the start.
    at_start_bytes: i64,
    unexplained: VecDeque<i64>,
    detector: LeakDetector,
    period: Duration,
}

impl<S: MemorySources> Watcher<S> {
    fn new(sources: S, period: Duration) -> Self {
        let warm_up_bytes = sources.warm_up_bytes();
        let mut watcher = Watcher {
            sources,
            at_start_bytes: 0,
            unexplained: VecDeque::with_capacity(WINDOW),
            detector: LeakDetector::new(period, warm_up_bytes),
            period,
        };
        watcher.at_start_bytes = watcher.look().unexplained_bytes;
        watcher.unexplained.clear();
        watcher
    }

    fn look(&mut self) -> Sample {
        let socket_bytes = self.sources.socket_bytes();
        let process = process::memory_now();
        let heap = heap::installed().map(heap::Heap::figures);
        let survey = self.sources.accounts().survey();
        // Without an allocator's figures, what the process has of its own stands for them, the pool included.
        let held_bytes = heap.map_or(process.anonymous_bytes, |heap| heap.allocated_bytes);
        let explained_bytes = survey.total().at(Place::Heap) + self.sources.cached_bytes();
        let unexplained_bytes = held_bytes as i64 - explained_bytes as i64 - self.at_start_bytes;
        if self.unexplained.len() == WINDOW {
            self.unexplained.pop_front();
        }
        self.unexplained.push_back(unexplained_bytes);
        let trend = Trend::of(self.unexplained.make_contiguous(), self.period);
        Sample {
            process,
            heap,
            socket_bytes,
            survey,
            unexplained_bytes,
            trend,
        }
    }
}
