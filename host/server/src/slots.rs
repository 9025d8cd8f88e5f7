//! Connection slots: a new connection needs a file descriptor and memory within the process's limits.
//!
//! If no slot is free, idle connections are closed, the longest idle first. Their clients are notified as on a
//! keep-alive timeout.

use crate::transport::connection::{Connection, Connections};
use crate::transport::slot_waiters::{SlotWaiters, Waiting};
use millpond::MemoryPlan;
use millpond::ledger::{Budget, Reservation};
use millpond::memory_plan::RECEIVE_BYTES;
use std::future::{Future, ready};
use std::pin::pin;
use std::sync::{Arc, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of a listener's connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSlots {
    count: Arc<Semaphore>,
    memory: Arc<Budget>,
    /// Bytes that each connection reserves at its start.
    each_bytes: usize,
    connections: Arc<Connections>,
    slot_waiters: Arc<SlotWaiters>,
}

/// The slot of one connection, released on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    _one: OwnedSemaphorePermit,
    reserved: Reservation,
    /// The last field, so that the permit and the memory are released before waiters are woken.
    _released: SlotReleased,
}

impl ConnectionSlots {
    /// Creates the slots of a listener. `connections` lists its open connections, of which idle ones may be closed.
    pub(crate) fn new(
        bound: &MemoryPlan,
        each_bytes: usize,
        connections: &Arc<Connections>,
    ) -> Self {
        ConnectionSlots {
            count: Arc::new(Semaphore::new(bound.connections)),
            // A client that waits for a slot has a socket already.
            memory: Arc::new(Budget::new(
                bound.connections_bytes.saturating_sub(RECEIVE_BYTES),
            )),
            each_bytes,
            connections: Arc::clone(connections),
            slot_waiters: Arc::default(),
        }
    }

    /// The waiters for a slot.
    pub(crate) fn slot_waiters(&self) -> &Arc<SlotWaiters> {
        &self.slot_waiters
    }

    /// Waits for a slot. Returns `None` only if the semaphore is closed, which never happens.
    pub(crate) async fn take(&self) -> Option<Slot> {
        let taken = async {
            let one = Arc::clone(&self.count).acquire_owned().await.ok()?;
            Some((one, self.memory.reserve_untimed(self.each_bytes).await))
        };
        let (one, reserved) = self.wait_for_room(taken).await?;
        Some(Slot {
            _one: one,
            reserved,
            _released: SlotReleased(Arc::clone(&self.slot_waiters)),
        })
    }

    /// Adds bytes to a slot, once there is room. The caller needs a timeout, since connections with slots may wait for
    /// each other.
    pub(crate) async fn enlarge(&self, slot: &mut Slot, bytes: usize) {
        let more = self.wait_for_room(self.memory.reserve_untimed(bytes));
        slot.reserved.merge(more.await);
    }

    /// Waits for room. If there is none at once, idle connections are closed.
    async fn wait_for_room<T>(&self, room: impl Future<Output = T>) -> T {
        let mut room = pin!(room);
        tokio::select! {
            biased;
            room = room.as_mut() => return room,
            () = ready(()) => {}
        }
        let _waiting = Waiting::begin(&self.slot_waiters);
        let mut leaving: Vec<Weak<Connection>> = Vec::new();
        loop {
            // A connection that received a request meanwhile stays open.
            leaving.retain(|connection| {
                let connection = connection.upgrade();
                connection.is_some_and(|connection| connection.timer().is_dismissed())
            });
            if leaving.is_empty() {
                leaving = self.connections.dismiss_idle(&self.slot_waiters);
            }
            tokio::select! {
                biased;
                room = room.as_mut() => return room,
                () = self.slot_waiters.notified() => {}
            }
        }
    }
}

/// Wakes waiters on drop, when a slot is released.
#[derive(Debug)]
struct SlotReleased(Arc<SlotWaiters>);

impl Drop for SlotReleased {
    fn drop(&mut self) {
        self.0.changed();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn larger_connections_leave_room_for_fewer() {
        const KIB: usize = 1024;
        let limits = millpond::Limits::default();
        let mut bound = MemoryPlan::partition(1 << 30, 0, 0, 1000, &limits).unwrap();
        bound.connections = 4;
        bound.connections_bytes = 8 * KIB + RECEIVE_BYTES;
        let slots = ConnectionSlots::new(&bound, 2 * KIB, &Arc::default());
        let mut first = slots.take().await.unwrap();
        slots.enlarge(&mut first, 3 * KIB).await;
        let second = slots.take().await.unwrap();
        assert!(slots.take().now_or_never().is_none(), "one KiB is left");
        drop(first);
        let rest: Vec<_> = [slots.take().await, slots.take().await].into();
        assert!(rest.iter().all(Option::is_some));
        let mut second = second;
        assert!(slots.enlarge(&mut second, 3 * KIB).now_or_never().is_none());
        drop(rest);
        assert!(slots.enlarge(&mut second, 3 * KIB).now_or_never().is_some());
    }
}
