//! The places that connections take of the process's bound: one more only when there are memory and a file for it.
//!
//! Where there is no place, connections that are idle make way, those first that have been so longest. Their clients are
//! told, as at the end of their time.

use crate::connection::{Connection, Connections};
use crate::ledger::budget::{Bound, Budget, Reservation};
use crate::limits::RECEIVE_BYTES;
use std::future::{Future, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What is set aside for a listener's connections.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    count: Arc<Semaphore>,
    memory: Arc<Budget>,
    /// What each connection takes at its beginning.
    each_bytes: usize,
    connections: Arc<Connections>,
    wanted: Arc<Wanted>,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _one: OwnedSemaphorePermit,
    reserved: Reservation,
    /// The last field, so that what it tells of has happened.
    _given_back: GivenBack,
}

/// Who waits for a place, and what they are told of. The connections of one listener share it.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    waiting: AtomicUsize,
    changed: Notify,
}

impl Places {
    /// Places for one listener's connections, which enter themselves there.
    pub(crate) fn new(bound: &Bound, each_bytes: usize, connections: &Arc<Connections>) -> Self {
        Places {
            count: Arc::new(Semaphore::new(bound.connections)),
            // A client that waits for its place is a socket already.
            memory: Arc::new(Budget::new(
                bound.connections_bytes.saturating_sub(RECEIVE_BYTES),
            )),
            each_bytes,
            connections: Arc::clone(connections),
            wanted: Arc::default(),
        }
    }

    /// Who waits for one.
    pub(crate) fn wanted(&self) -> &Arc<Wanted> {
        &self.wanted
    }

    /// A place, once there is one; `None` never comes as things are, since neither count is ever closed.
    pub(crate) async fn take(&self) -> Option<Place> {
        let taken = async {
            let one = Arc::clone(&self.count).acquire_owned().await.ok()?;
            Some((one, self.memory.wait_for(self.each_bytes).await?))
        };
        let (one, reserved) = self.make_way_for(taken).await?;
        Some(Place {
            _one: one,
            reserved,
            _given_back: GivenBack(Arc::clone(&self.wanted)),
        })
    }

    /// Makes a place larger by so many bytes, once there is room. Whoever waits here has to be timed: those that have
    /// places may wait for each other.
    pub(crate) async fn enlarge(&self, place: &mut Place, bytes: usize) {
        if let Some(more) = self.make_way_for(self.memory.wait_for(bytes)).await {
            place.reserved.merge(more);
        }
    }

    /// Waits for room. Where there is none at once, idle connections are closed for it.
    async fn make_way_for<T>(&self, room: impl Future<Output = T>) -> T {
        let mut room = pin!(room);
        tokio::select! {
            biased;
            room = room.as_mut() => return room,
            () = ready(()) => {}
        }
        let _waiting = Waiting::begin(&self.wanted);
        let mut leaving: Vec<Weak<Connection>> = Vec::new();
        loop {
            // One that has a request again stays.
            leaving.retain(|connection| {
                let connection = connection.upgrade();
                connection.is_some_and(|connection| connection.clock().is_to_leave())
            });
            if leaving.is_empty() {
                leaving = self.connections.dismiss_idle(&self.wanted);
            }
            tokio::select! {
                biased;
                room = room.as_mut() => return room,
                () = self.wanted.changed.notified() => {}
            }
        }
    }
}

impl Wanted {
    /// A connection has become idle, or has ended.
    pub(crate) fn changed(&self) {
        // One who begins to wait counts first, and then locks each connection's clock to look at it. The caller has
        // locked its own before: either it sees the count here, or the other sees what has changed.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_one();
        }
    }
}

/// One who waits.
struct Waiting<'a>(&'a Wanted);

impl<'a> Waiting<'a> {
    fn begin(wanted: &'a Wanted) -> Self {
        wanted.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(wanted)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        // What it was told of may be for the next one.
        self.0.changed();
    }
}

/// Tells who waits that there is room.
#[derive(Debug)]
struct GivenBack(Arc<Wanted>);

impl Drop for GivenBack {
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
        let bound = Bound {
            connections: 4,
            connections_bytes: 8 * KIB + RECEIVE_BYTES,
            ..Bound::divide(1 << 30, 0, 0, 1000, &crate::Limits::default()).unwrap()
        };
        let places = Places::new(&bound, 2 * KIB, &Arc::default());
        let mut first = places.take().await.unwrap();
        places.enlarge(&mut first, 3 * KIB).await;
        let second = places.take().await.unwrap();
        assert!(places.take().now_or_never().is_none(), "one KiB is left");
        drop(first);
        let rest: Vec<_> = [places.take().await, places.take().await].into();
        assert!(rest.iter().all(Option::is_some));
        let mut second = second;
        assert!(
            places
                .enlarge(&mut second, 3 * KIB)
                .now_or_never()
                .is_none()
        );
        drop(rest);
        assert!(
            places
                .enlarge(&mut second, 3 * KIB)
                .now_or_never()
                .is_some()
        );
    }
}
