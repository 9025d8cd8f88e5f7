//! Waiting for a place among the connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The waiters for a place, who are woken when there may be one. The connections of one listener share it.
#[derive(Debug, Default)]
pub(crate) struct SlotWaiters {
    waiting: AtomicUsize,
    changed: Notify,
}

impl SlotWaiters {
    /// A connection has become idle, or has ended.
    pub(crate) fn changed(&self) {
        // One who begins to wait counts first, and then locks each connection's clock to look at it. The caller has
        // locked its own before: either it sees the count here, or the other sees what has changed.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_one();
        }
    }

    /// Waits until something has changed.
    pub(crate) async fn notified(&self) {
        self.changed.notified().await;
    }
}

/// One who waits.
pub(crate) struct Waiting<'a>(&'a SlotWaiters);

impl<'a> Waiting<'a> {
    pub(crate) fn begin(slot_waiters: &'a SlotWaiters) -> Self {
        slot_waiters.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(slot_waiters)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        // Its wake-up may be meant for the next waiter.
        self.0.changed();
    }
}
