//! The places that connections take of the process's bound: one more only when there are memory and a file for it.

use crate::ledger::budget::{Bound, Budget, Reservation};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is set aside for a listener's connections.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    count: Arc<Semaphore>,
    memory: Arc<Budget>,
    /// What each connection takes at its beginning.
    each_bytes: usize,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _one: OwnedSemaphorePermit,
    reserved: Reservation,
}

impl Places {
    pub(crate) fn new(bound: &Bound, each_bytes: usize) -> Self {
        Places {
            count: Arc::new(Semaphore::new(bound.connections)),
            memory: Arc::new(Budget::new(bound.connections_bytes)),
            each_bytes,
        }
    }

    /// A place, once there is one; `None` never comes as things are, since neither count is ever closed.
    pub(crate) async fn take(&self) -> Option<Place> {
        let one = Arc::clone(&self.count).acquire_owned().await.ok()?;
        let reserved = self.memory.wait_for(self.each_bytes).await?;
        Some(Place {
            _one: one,
            reserved,
        })
    }

    /// Makes a place larger by so many bytes, once there is room. Whoever waits here has to be timed: those that have
    /// places may wait for each other.
    pub(crate) async fn enlarge(&self, place: &mut Place, bytes: usize) {
        if let Some(more) = self.memory.wait_for(bytes).await {
            place.reserved.merge(more);
        }
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
            connections_bytes: 8 * KIB,
            ..Bound::divide(1 << 30, 0, 0, 1000, &crate::Limits::default()).unwrap()
        };
        let places = Places::new(&bound, 2 * KIB);
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
