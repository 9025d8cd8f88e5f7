//! Watches the process's memory, and says in words when it grows, how, and who holds what grows.
//!
//! Each second it looks at what the kernel, the allocator and the ledgers say. What the allocator has given out and
//! no ledger explains should stay as it was at the start; what is held for requests that have ended should be
//! nothing. When either grows, there is a leak, and the watch names it while it is young.

mod alarm;
#[cfg(target_os = "linux")]
mod cgroup;
pub(crate) mod drill;
pub mod heap;
pub mod process;
mod trend;

pub use trend::{Shape, Trend};

use crate::ledger::Place;
use crate::ledger::accounts::Survey;
use crate::ledger::budget::{ALLOCATOR_PART, Bound};
use crate::limits::POOL_SLOT_BYTES;
use crate::request::Millpond;
use crate::watch::heap::HeapFigures;
use crate::watch::process::ProcessMemory;
use alarm::Alarm;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// What the watch saw last.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sighting {
    /// What the kernel says of the process.
    pub process: ProcessMemory,
    /// What the allocator says of itself, where it says anything.
    pub heap: Option<HeapFigures>,
    /// What the kernel holds for open connections.
    pub socket_bytes: usize,
    /// What the ledgers say.
    pub survey: Survey,
    /// What the allocator has given out beyond what it had at the start and what the ledgers explain. Ledgers count
    /// a little more than is taken, so it may be below zero.
    pub unexplained_bytes: i64,
    /// How what is unexplained moves.
    pub trend: Trend,
}

/// A running watch.
#[derive(Debug, Clone)]
pub struct Watch {
    last: Arc<Mutex<Sighting>>,
}

/// Looks that a trend is made of.
const WINDOW: usize = 60;

impl Watch {
    /// Begins to watch, on the current runtime, for as long as that runs. What the process has now is taken for what
    /// it has without a request. It looks once in each `period`, a second as a rule.
    #[must_use]
    pub fn start(millpond: &Millpond, period: Duration) -> Self {
        let mut watcher = Watcher::new(millpond.clone(), period);
        let watch = Watch {
            last: Arc::new(Mutex::new(watcher.look())),
        };
        let last = Arc::clone(&watch.last);
        tokio::spawn(async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let sighting = watcher.look();
                let routes = watcher.millpond.accounts().routes();
                watcher.alarm.consider(&sighting, routes);
                *last.lock().unwrap_or_else(PoisonError::into_inner) = sighting;
            }
        });
        watch
    }

    /// What was seen last, at most a second ago.
    #[must_use]
    pub fn last(&self) -> Sighting {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What may come to be unexplained without a leak, in bytes. Without an allocator's figures the process's own memory stands
/// for them, which has the pool of instances in it, and what the allocator keeps.
fn warm_up_bytes(bound: &Bound) -> usize {
    let pool_bytes = bound.instances * POOL_SLOT_BYTES;
    let beside_bytes = match heap::installed() {
        Some(_) => 0,
        None => pool_bytes + bound.bound_bytes / ALLOCATOR_PART,
    };
    process::WARM_UP_BYTES + beside_bytes
}

struct Watcher {
    millpond: Millpond,
    /// What was allocated and not explained at the start.
    at_start_bytes: i64,
    unexplained: VecDeque<i64>,
    alarm: Alarm,
    period: Duration,
}

impl Watcher {
    fn new(millpond: Millpond, period: Duration) -> Self {
        let warm_up_bytes = warm_up_bytes(millpond.bound());
        let mut watcher = Watcher {
            millpond,
            at_start_bytes: 0,
            unexplained: VecDeque::with_capacity(WINDOW),
            alarm: Alarm::new(period, warm_up_bytes),
            period,
        };
        watcher.at_start_bytes = watcher.look().unexplained_bytes;
        watcher.unexplained.clear();
        watcher
    }

    fn look(&mut self) -> Sighting {
        let connections = self.millpond.connections().live();
        let socket_bytes = connections
            .iter()
            .map(|connection| connection.kernel_bytes())
            .sum();
        drop(connections);
        let process = process::memory_now();
        let heap = heap::installed().map(heap::Heap::figures);
        let survey = self.millpond.accounts().survey();
        // Without an allocator's figures, what the process has of its own stands for them, the pool included.
        let held_bytes = heap.map_or(process.anonymous_bytes, |heap| heap.allocated_bytes);
        let explained_bytes = survey.total().at(Place::Heap) + self.millpond.cache_bytes().total();
        let unexplained_bytes = held_bytes as i64 - explained_bytes as i64 - self.at_start_bytes;
        if self.unexplained.len() == WINDOW {
            self.unexplained.pop_front();
        }
        self.unexplained.push_back(unexplained_bytes);
        let trend = Trend::of(self.unexplained.make_contiguous(), self.period);
        Sighting {
            process,
            heap,
            socket_bytes,
            survey,
            unexplained_bytes,
            trend,
        }
    }
}
