//! The part of the process's memory that responses in progress reserve from.
//!
//! Nothing is handed out that was not set aside, so the sum is never passed, whatever the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Most requests that wait for room; one more is told to come again at once.
pub const QUEUE: usize = 1024;

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
#[non_exhaustive]
pub enum Overloaded {
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

    /// Bytes that are reserved now.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        (self.total_units - self.units.available_permits().min(self.total_units)) * UNIT_BYTES
    }

    /// Requests that wait for room now.
    #[must_use]
    pub fn queue_length(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Reserves so many bytes and a place among the instances, first come, first served.
    ///
    /// # Errors
    /// [`Overloaded`], when the queue is full or the wait too long.
    pub async fn admit(
        &self,
        bytes: usize,
        instances: &Arc<Semaphore>,
        longest: Duration,
    ) -> Result<(Reservation, OwnedSemaphorePermit), Overloaded> {
        if let (Some(room), Ok(place)) = (
            self.try_reserve(bytes),
            Arc::clone(instances).try_acquire_owned(),
        ) {
            return Ok((room, place));
        }
        let _waiting = QueueGuard::enter(self)?;
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
            _ => Err(Overloaded::TooLong(longest)),
        }
    }

    /// Reserves so many bytes, first come, first served.
    ///
    /// # Errors
    /// As [`Budget::admit`].
    pub async fn reserve(
        &self,
        bytes: usize,
        longest: Duration,
    ) -> Result<Reservation, Overloaded> {
        if let Some(room) = self.try_reserve(bytes) {
            return Ok(room);
        }
        let _waiting = QueueGuard::enter(self)?;
        match timeout(longest, self.reserve_untimed(bytes)).await {
            Ok(Some(room)) => Ok(room),
            _ => Err(Overloaded::TooLong(longest)),
        }
    }

    /// Reserves so many bytes once there is room for them, first come, first served, however long that takes. `None`
    /// never comes as things are, since the budget is never closed.
    pub async fn reserve_untimed(&self, bytes: usize) -> Option<Reservation> {
        let permit = Arc::clone(&self.units)
            .acquire_many_owned(units(bytes))
            .await;
        permit.ok().map(|permit| Reservation { permit })
    }

    /// Reserves so many bytes if there is room for them now and nobody waits for it.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let permit = Arc::clone(&self.units).try_acquire_many_owned(units(bytes));
        permit.ok().map(|permit| Reservation { permit })
    }

    /// Reserves so many bytes if a quarter of the budget is left then: for what makes an answer faster, not for
    /// what makes one possible.
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

/// One of those who wait.
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

/// Bytes of the budget that are set aside for as long as this lives.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

impl Reservation {
    /// The bytes reserved, rounded up to whole KiB.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT_BYTES
    }

    /// Makes one of two.
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
