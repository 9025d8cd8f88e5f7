//! The bound of the whole process: what it is made of, and the part that requests reserve from.
//!
//! The bound is a sum: what the process has at its start, one full request for each instance that may exist, one
//! connection for each that may be open, and the budget, from which each answer in progress reserves its worst
//! case. Nothing is handed out that was not set aside, so the sum is never passed, whatever the load.

use crate::limits::{
    ANSWER_BYTES, CONCURRENT_INSTANCES, CONNECTION_BYTES, CONNECTIONS, Limits, POOL_SLOT_BYTES,
    QUEUE, RECEIVE_BYTES,
};
use crate::store::KEPT_FILES_PART;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How the process's bound is made up, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Bound {
    /// The sum: what the process and the kernel on its behalf never hold more than.
    pub bound_bytes: usize,
    /// What the process holds before its first request, with room for the allocator's own keeping.
    pub fixed_bytes: usize,
    /// For what is kept between requests: open files of the store's, and answers that may be given again.
    pub kept_bytes: usize,
    /// Instances that may exist at one time.
    pub instances: usize,
    /// For the instances: each as much as one request may hold, and its slot in the pool.
    pub instances_bytes: usize,
    /// Connections that may be open at one time.
    pub connections: usize,
    /// For the connections.
    pub connections_bytes: usize,
    /// For answers in progress.
    pub answers_bytes: usize,
}

/// The memory that was given is too little to serve anything in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "memory_bytes is {} and has to be {} at least: this process takes {} by itself and {} for one request",
    readable(*bound_bytes), readable(*least_bytes), readable(*fixed_bytes), readable(*request_bytes)
)]
pub struct TooLittle {
    /// What was given.
    pub bound_bytes: usize,
    /// What the process takes by itself.
    pub fixed_bytes: usize,
    /// What one request may take.
    pub request_bytes: usize,
    /// The least that would do.
    pub least_bytes: usize,
}

const MIB: usize = 1024 * 1024;

/// Empty pages that the allocator keeps for a second, and parts of pages between allocations: as measured under a flood,
/// with a margin. It is that part of the bound.
pub(crate) const ALLOCATOR_PART: usize = 16;

/// What a process takes more by itself at one start than at another, in bytes: the compiler leaves pages with the
/// allocator, or finds its code in the cache. It is in the least that is asked for, so that that is enough the next time.
const STARTS_DIFFER_BYTES: usize = 4 * MIB;

fn readable(bytes: usize) -> impl fmt::Display {
    bytesize::ByteSize(bytes as u64).display().iec()
}

impl Bound {
    /// Divides what is given among instances, connections and answers: an eighth for instances, at most half for
    /// connections, the rest for answers; before that the process has what it takes by itself, the allocator its part,
    /// the store what it keeps, and answers that are given again at most a thirty-second. `files` is how many files the
    /// process may have open.
    ///
    /// # Errors
    /// [`TooLittle`].
    pub fn divide(
        bound_bytes: usize,
        own_bytes: usize,
        store_bytes: usize,
        files: usize,
        limits: &Limits,
    ) -> Result<Self, TooLittle> {
        let instance_bytes = limits.request_memory_bytes + POOL_SLOT_BYTES;
        let fixed_bytes = own_bytes + store_bytes + bound_bytes / ALLOCATOR_PART;
        let served_bytes =
            2 * instance_bytes + 4 * (CONNECTION_BYTES + ANSWER_BYTES) + RECEIVE_BYTES;
        if bound_bytes < fixed_bytes + served_bytes {
            // More memory is more for the allocator, too.
            let beside = own_bytes + store_bytes + served_bytes + STARTS_DIFFER_BYTES;
            let least_bytes = beside + beside.div_ceil(ALLOCATOR_PART - 1);
            return Err(TooLittle {
                bound_bytes,
                fixed_bytes,
                request_bytes: limits.request_memory_bytes,
                least_bytes: least_bytes.next_multiple_of(MIB),
            });
        }
        let given = bound_bytes - fixed_bytes;
        let reuse_bytes = limits.response_cache_bytes.min(given / 32);
        let given = given - reuse_bytes;
        let most_instances = limits.concurrent_instances.min(CONCURRENT_INSTANCES);
        let instances = (given / 8 / instance_bytes).clamp(1, most_instances.max(1));
        let instances_bytes = instances * instance_bytes;
        // A connection takes a socket, and its answer most often one file.
        let connections = (given - instances_bytes) / 2 / CONNECTION_BYTES;
        let files = files - files / KEPT_FILES_PART;
        let connections = connections.min(files / 2).clamp(1, CONNECTIONS);
        // One more is accepted and waits for its place.
        let connections_bytes = connections * CONNECTION_BYTES + RECEIVE_BYTES;
        Ok(Bound {
            bound_bytes,
            fixed_bytes: fixed_bytes - store_bytes,
            kept_bytes: store_bytes + reuse_bytes,
            instances,
            instances_bytes,
            connections,
            connections_bytes,
            answers_bytes: given - instances_bytes - connections_bytes,
        })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at most = {} fixed + {} for caches + {} for {} instances + {} for {} connections + {} for responses",
            readable(self.bound_bytes),
            readable(self.fixed_bytes),
            readable(self.kept_bytes),
            readable(self.instances_bytes),
            self.instances,
            readable(self.connections_bytes),
            self.connections,
            readable(self.answers_bytes),
        )
    }
}

/// The part of the bound that answers in progress reserve from.
#[derive(Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    total_units: usize,
    waiting: AtomicUsize,
}

/// Reservations are counted in these, so that any budget fits the counter.
const UNIT_BYTES: usize = 1024;

/// There is no room, and no sense in waiting longer for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoom {
    /// As many requests wait as may.
    #[error("the admission queue is full: {QUEUE} requests")]
    QueueFull,
    /// Waiting took too long.
    #[error("no memory became free within {0:?}")]
    TooLong(Duration),
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let total_units = (bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Budget {
            units: Arc::new(Semaphore::new(total_units)),
            total_units,
            waiting: AtomicUsize::new(0),
        }
    }

    /// All there is, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_units * UNIT_BYTES
    }

    /// What is reserved now, in bytes.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        (self.total_units - self.units.available_permits().min(self.total_units)) * UNIT_BYTES
    }

    /// Requests that wait for room now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Reserves so many bytes and a place among the instances, first come, first served.
    ///
    /// # Errors
    /// [`NoRoom`], when the queue is full or the wait too long.
    pub(crate) async fn admit(
        &self,
        bytes: usize,
        instances: &Arc<Semaphore>,
        longest: Duration,
    ) -> Result<(Reservation, OwnedSemaphorePermit), NoRoom> {
        if let (Some(room), Ok(place)) = (
            self.try_reserve(bytes),
            Arc::clone(instances).try_acquire_owned(),
        ) {
            return Ok((room, place));
        }
        let _waiting = Waiting::join(self)?;
        let both = async {
            let room = Arc::clone(&self.units)
                .acquire_many_owned(units(bytes))
                .await;
            let place = Arc::clone(instances).acquire_owned().await;
            (room, place)
        };
        match timeout(longest, both).await {
            Ok((Ok(permit), Ok(place))) => Ok((Reservation { permit }, place)),
            // Neither is ever closed, so this is the wait.
            _ => Err(NoRoom::TooLong(longest)),
        }
    }

    /// Reserves so many bytes, first come, first served.
    ///
    /// # Errors
    /// As [`Budget::admit`].
    pub(crate) async fn reserve(
        &self,
        bytes: usize,
        longest: Duration,
    ) -> Result<Reservation, NoRoom> {
        if let Some(room) = self.try_reserve(bytes) {
            return Ok(room);
        }
        let _waiting = Waiting::join(self)?;
        match timeout(longest, self.wait_for(bytes)).await {
            Ok(Some(room)) => Ok(room),
            _ => Err(NoRoom::TooLong(longest)),
        }
    }

    /// Reserves so many bytes once there is room for them, first come, first served, however long that takes. `None`
    /// never comes as things are, since the budget is never closed.
    pub(crate) async fn wait_for(&self, bytes: usize) -> Option<Reservation> {
        let permit = Arc::clone(&self.units)
            .acquire_many_owned(units(bytes))
            .await;
        permit.ok().map(|permit| Reservation { permit })
    }

    /// Reserves so many bytes if there is room for them now and nobody waits for it.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let permit = Arc::clone(&self.units).try_acquire_many_owned(units(bytes));
        permit.ok().map(|permit| Reservation { permit })
    }

    /// Reserves so many bytes if a quarter of the budget is left then: for what makes an answer faster, not for
    /// what makes one possible.
    pub(crate) fn try_reserve_spare(&self, bytes: usize) -> Option<Reservation> {
        let spare = self.total_bytes() / 4;
        (self.reserved_bytes() + bytes + spare <= self.total_bytes())
            .then(|| self.try_reserve(bytes))?
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// One of those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(budget: &'a Budget) -> Result<Self, NoRoom> {
        let waiting = Waiting(&budget.waiting);
        if waiting.0.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            return Err(NoRoom::QueueFull);
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of the budget that are set aside for as long as this lives.
#[derive(Debug)]
pub(crate) struct Reservation {
    permit: OwnedSemaphorePermit,
}

impl Reservation {
    pub(crate) fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT_BYTES
    }

    /// Makes one of two.
    pub(crate) fn merge(&mut self, other: Reservation) {
        self.permit.merge(other.permit);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[tokio::test]
    async fn what_is_reserved_comes_back_and_a_wait_ends() {
        let budget = Budget::new(10 * UNIT_BYTES);
        let instances = Arc::new(Semaphore::new(1));
        let moment = Duration::from_millis(1);
        let (first, place) = budget
            .admit(9 * UNIT_BYTES + 1, &instances, moment)
            .await
            .unwrap();
        assert_eq!(first.bytes(), 10 * UNIT_BYTES);
        assert_eq!(budget.reserved_bytes(), budget.total_bytes());
        assert!(budget.try_reserve(1).is_none());
        let refused = budget.admit(1, &instances, moment).await.unwrap_err();
        assert_eq!(refused, NoRoom::TooLong(moment));
        assert_eq!(
            (budget.waiting(), budget.reserved_bytes()),
            (0, 10 * UNIT_BYTES)
        );
        drop((first, place));
        assert_eq!(budget.reserved_bytes(), 0);
        assert!(budget.admit(1, &instances, moment).await.is_ok());
    }

    #[test]
    fn a_queue_has_an_end() {
        let budget = Budget::new(0);
        let queue: Vec<_> = (0..QUEUE).map(|_| Waiting::join(&budget)).collect();
        assert!(queue.iter().all(Result::is_ok));
        assert_eq!(Waiting::join(&budget).err(), Some(NoRoom::QueueFull));
        drop(queue);
        assert!(Waiting::join(&budget).is_ok());
    }

    proptest! {
        #[test]
        fn the_parts_never_pass_the_bound(
            bound_bytes in 0..1_usize << 40,
            own_bytes in 0..1_usize << 30,
            store_bytes in 0..1_usize << 24,
            files in 0..2_000_000_usize,
            request_memory_bytes in 1..1_usize << 30,
        ) {
            let limits = Limits { request_memory_bytes, ..Limits::default() };
            if let Ok(bound) = Bound::divide(bound_bytes, own_bytes, store_bytes, files, &limits) {
                let sum = bound.fixed_bytes
                    + bound.kept_bytes
                    + bound.instances_bytes
                    + bound.connections_bytes
                    + bound.answers_bytes;
                prop_assert_eq!(sum, bound_bytes);
                prop_assert!(bound.answers_bytes >= ANSWER_BYTES);
                prop_assert!(bound.instances > 0 && bound.connections > 0);
            }
        }

        #[test]
        fn the_least_that_is_asked_for_is_enough(
            own_bytes in 0..1_usize << 30,
            more_at_the_next_start in 0..=STARTS_DIFFER_BYTES,
            request_memory_bytes in 1..1_usize << 30,
        ) {
            let limits = Limits { request_memory_bytes, ..Limits::default() };
            let error = Bound::divide(0, own_bytes, 0, 1000, &limits).unwrap_err();
            let bound = Bound::divide(error.least_bytes, own_bytes + more_at_the_next_start, 0, 1000, &limits);
            prop_assert!(bound.is_ok(), "{:?}", bound);
        }
    }
}
