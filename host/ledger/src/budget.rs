//! Memory that responses in progress reserve from.
//!
//! Every response reserves its memory first, so the sum never exceeds the budget, whatever the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Maximum number of requests that wait for memory. A further request is rejected at once.
pub(crate) const QUEUE: usize = 1024;

/// Memory that responses in progress reserve from. A first-come, first-served queue holds the requests that wait.
#[derive(Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    total_units: usize,
    waiting: AtomicUsize,
}

/// Unit of a reservation, in bytes. In bytes, a large budget would not fit the semaphore's counter.
const UNIT_BYTES: usize = 1024;

/// The error of a reservation that did not succeed in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Overloaded {
    /// The queue is full.
    #[error("the admission queue is full: {QUEUE} requests")]
    QueueFull,
    /// No memory became free within this time.
    #[error("no memory became free within {0:?}")]
    TooLong(Duration),
}

impl Budget {
    /// Returns a budget of `bytes`, rounded down to whole KiB.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let total_units = (bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Budget {
            units: Arc::new(Semaphore::new(total_units)),
            total_units,
            waiting: AtomicUsize::new(0),
        }
    }

    /// Size of the budget, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_units * UNIT_BYTES
    }

    /// Reserved bytes.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        (self.total_units - self.units.available_permits().min(self.total_units)) * UNIT_BYTES
    }

    /// Number of requests that wait for memory or for an instance.
    #[must_use]
    pub fn queue_length(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Reserves `bytes` and a permit of `instances`, first come, first served.
    ///
    /// Waits for `max_wait` at most.
    ///
    /// # Errors
    /// [`Overloaded`], if the queue is full or the wait too long.
    pub async fn admit(
        &self,
        bytes: usize,
        instances: &Arc<Semaphore>,
        max_wait: Duration,
    ) -> Result<(Reservation, OwnedSemaphorePermit), Overloaded> {
        if let (Some(room), Ok(place)) = (
            self.try_reserve(bytes),
            Arc::clone(instances).try_acquire_owned(),
        ) {
            return Ok((room, place));
        }
        let _waiting = QueueGuard::enter(self)?;
        let both = async {
            let room = self.reserve_untimed(bytes).await;
            (room, Arc::clone(instances).acquire_owned().await)
        };
        match timeout(max_wait, both).await {
            Ok((room, Ok(place))) => Ok((room, place)),
            // Nothing closes the semaphore, so this is the timeout.
            _ => Err(Overloaded::TooLong(max_wait)),
        }
    }

    /// Reserves `bytes`, first come, first served. Waits for `max_wait` at most.
    ///
    /// # Errors
    /// [`Overloaded`], if the queue is full or the wait too long.
    pub async fn reserve(
        &self,
        bytes: usize,
        max_wait: Duration,
    ) -> Result<Reservation, Overloaded> {
        if let Some(room) = self.try_reserve(bytes) {
            return Ok(room);
        }
        let _waiting = QueueGuard::enter(self)?;
        let reserved = timeout(max_wait, self.reserve_untimed(bytes)).await;
        reserved.map_err(|_| Overloaded::TooLong(max_wait))
    }

    /// Reserves `bytes`, first come, first served, without a timeout and without a place in the queue.
    #[allow(clippy::expect_used, reason = "nothing closes the semaphore")]
    pub async fn reserve_untimed(&self, bytes: usize) -> Reservation {
        let permit = Arc::clone(&self.units).acquire_many_owned(units(bytes));
        Reservation {
            permit: permit.await.expect("the semaphore is never closed"),
        }
    }

    /// Reserves `bytes` if they are free now and no request waits for memory.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let permit = Arc::clone(&self.units).try_acquire_many_owned(units(bytes));
        permit.ok().map(|permit| Reservation { permit })
    }

    /// Reserves `bytes` if a quarter of the budget stays free. For memory that makes a response faster, not for memory
    /// that it needs.
    #[must_use]
    pub fn try_reserve_opportunistic(&self, bytes: usize) -> Option<Reservation> {
        let spare = self.total_bytes() / 4;
        (self.reserved_bytes() + bytes + spare <= self.total_bytes())
            .then(|| self.try_reserve(bytes))?
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// Place in the queue of requests that wait. Dropping it leaves the queue.
struct QueueGuard<'a>(&'a AtomicUsize);

impl<'a> QueueGuard<'a> {
    fn enter(budget: &'a Budget) -> Result<Self, Overloaded> {
        let waiting = QueueGuard(&budget.waiting);
        if waiting.0.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            return Err(Overloaded::QueueFull);
        }
        Ok(waiting)
    }
}

impl Drop for QueueGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reserved bytes of the budget. Dropping the reservation releases them.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

impl Reservation {
    /// Reserved bytes, a multiple of 1024.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT_BYTES
    }

    /// Adds another reservation of the same budget to this one.
    pub fn merge(&mut self, other: Reservation) {
        self.permit.merge(other.permit);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
        assert_eq!(refused, Overloaded::TooLong(moment));
        assert_eq!(
            (budget.queue_length(), budget.reserved_bytes()),
            (0, 10 * UNIT_BYTES)
        );
        drop((first, place));
        assert_eq!(budget.reserved_bytes(), 0);
        assert!(budget.admit(1, &instances, moment).await.is_ok());
    }

    #[test]
    fn a_queue_has_an_end() {
        let budget = Budget::new(0);
        let queue: Vec<_> = (0..QUEUE).map(|_| QueueGuard::enter(&budget)).collect();
        assert!(queue.iter().all(Result::is_ok));
        assert_eq!(
            QueueGuard::enter(&budget).err(),
            Some(Overloaded::QueueFull)
        );
        drop(queue);
        assert!(QueueGuard::enter(&budget).is_ok());
    }
}
