//! Wakes the accept loop and growing connections when a slot may be free.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The waiters for a slot. The connections of one listener share it.
#[derive(Debug, Default)]
pub(crate) struct SlotWaiters {
    waiting: AtomicUsize,
    changed: Notify,
}

impl SlotWaiters {
    /// Notifies the waiters: a connection became idle, or ended.
    pub(crate) fn changed(&self) {
        // No wake-up is lost. A new waiter increments the count, and then locks each connection's timer to read it. The
        // caller has locked and released its own timer. So either it reads the count, or the waiter reads the new
        // state.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_one();
        }
    }

    /// Waits for the next notification.
    pub(crate) async fn notified(&self) {
        self.changed.notified().await;
    }
}

/// A registered waiter.
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
        // Passes on a wake-up that this waiter may have consumed.
        self.0.changed();
    }
}
