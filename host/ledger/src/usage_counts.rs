//! Counts of the things in use, derived from their charges.

use crate::kind::Kind;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Numbers of requests, wasmtime stores, response bodies and open files in use.
#[derive(Debug, Default)]
pub struct UsageCounts {
    requests: AtomicUsize,
    stores: AtomicUsize,
    bodies: AtomicUsize,
    files: AtomicUsize,
    released: Notify,
}

impl UsageCounts {
    /// Number of requests that hold memory, including ended ones.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    /// Number of wasmtime stores, each with the instance of one request.
    #[must_use]
    pub fn stores(&self) -> usize {
        self.stores.load(Ordering::Acquire)
    }

    /// Number of response bodies.
    #[must_use]
    pub fn bodies(&self) -> usize {
        self.bodies.load(Ordering::Acquire)
    }

    /// Number of files open for requests.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files.load(Ordering::Acquire)
    }

    /// Waits until no request holds any memory.
    pub async fn idle(&self) {
        loop {
            let released = self.released.notified();
            if self.requests() + self.stores() + self.bodies() + self.files() == 0 {
                return;
            }
            released.await;
        }
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn uncount_request(&self) {
        self.release(&self.requests);
    }

    /// Counts a charge, if its kind has exactly one charge for each thing in use.
    pub(crate) fn count(&self, kind: Kind) {
        if let Some(count) = self.count_of(kind) {
            count.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn uncount(&self, kind: Kind) {
        if let Some(count) = self.count_of(kind) {
            self.release(count);
        }
    }

    /// Decrements a count. The last decrement wakes the tasks that wait for zero.
    fn release(&self, count: &AtomicUsize) {
        if count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.released.notify_waiters();
        }
    }

    fn count_of(&self, kind: Kind) -> Option<&AtomicUsize> {
        match kind {
            Kind::Instance => Some(&self.stores),
            Kind::Response => Some(&self.bodies),
            Kind::Files => Some(&self.files),
            _ => None,
        }
    }
}
