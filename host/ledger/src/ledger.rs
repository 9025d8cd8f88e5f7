//! Ledger of one owner. Each thing held for the owner has a [`Charge`], a token that releases its bytes when it is
//! dropped.
//!
//! A charge that would exceed the ledger's limit fails. The limit applies to the sum of all kinds.

use crate::budget::Reservation;
use crate::kind::{Balance, Kind};
use crate::route::Route;
use crate::usage_counts::UsageCounts;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// Owner of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// A request.
    Request {
        /// Method of the request.
        method: http::Method,
        /// Route of the request's target, as in `/api/media/:id`.
        route: Arc<Route>,
    },
    /// A connection.
    Connection,
    /// The host itself, as for a probe.
    Host,
}

/// Account of the memory that one request or connection holds, with a limit on the sum.
///
/// The owner ends when its ledger is dropped. Charges that outlive the ledger are counted as leaked until they are
/// dropped.
#[derive(Debug)]
pub struct Ledger {
    entries: Arc<Entries>,
}

/// The error of a charge that would exceed the ledger's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request would hold more than {limit_bytes} bytes, with {kind}")]
pub struct LimitExceeded {
    /// Kind of the charge.
    pub kind: Kind,
    /// Limit of the ledger, in bytes.
    pub limit_bytes: usize,
}

/// State shared by a ledger and its charges.
#[derive(Debug)]
pub(crate) struct Entries {
    id: u64,
    owner: Owner,
    since: Instant,
    limit_bytes: usize,
    total: AtomicUsize,
    peak: AtomicUsize,
    kinds: [AtomicUsize; Kind::ALL.len()],
    ended: OnceLock<Instant>,
    /// Reservations of the budget, released with the last charge and not with the ledger.
    reservations: Mutex<Vec<Reservation>>,
    ledgers: Arc<LiveLedgers>,
}

impl Ledger {
    /// Opens a ledger for `owner`. `limit_bytes` is the maximum sum of its charges.
    #[must_use]
    pub fn new(ledgers: &Arc<LiveLedgers>, owner: Owner, limit_bytes: usize) -> Self {
        let entries = Arc::new(Entries {
            id: ledgers.next_id.fetch_add(1, Ordering::Relaxed),
            owner,
            since: Instant::now(),
            limit_bytes,
            total: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            kinds: Default::default(),
            ended: OnceLock::new(),
            reservations: Mutex::new(Vec::new()),
            ledgers: Arc::clone(ledgers),
        });
        ledgers.register(&entries);
        Ledger { entries }
    }

    /// Charges `bytes` of a kind until the returned [`Charge`] is dropped.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the sum would exceed the limit. Nothing is charged then.
    pub fn charge(&self, kind: Kind, bytes: usize) -> Result<Charge, LimitExceeded> {
        self.handle().charge(kind, bytes)
    }

    /// Returns a charge of zero bytes, which can grow.
    #[must_use]
    pub fn empty_charge(&self, kind: Kind) -> Charge {
        self.handle().empty_charge(kind)
    }

    /// Returns a handle that can charge this ledger and may outlive it.
    #[must_use]
    pub fn handle(&self) -> LedgerHandle {
        LedgerHandle {
            entries: Arc::clone(&self.entries),
        }
    }

    /// Bytes charged now, by kind.
    #[must_use]
    pub fn balance(&self) -> Balance {
        self.entries.balance()
    }

    /// Time at which the ledger was opened.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.entries.since
    }

    /// Maximum sum of the charges at one time, in bytes.
    #[must_use]
    pub fn peak_bytes(&self) -> usize {
        self.entries.peak.load(Ordering::Relaxed)
    }

    /// Holds a reservation of the budget until the last charge has been dropped.
    pub fn keep(&self, reservation: Reservation) {
        self.entries.reservations.lock().push(reservation);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // With no other reference, the entries are dropped with this ledger.
        if Arc::strong_count(&self.entries) > 1 {
            // The owner may have ended through a [`LedgerHandle`] before. The first time counts.
            let _ = self.entries.ended.set(Instant::now());
        }
    }
}

/// Reference to a ledger that can charge it. It does not keep the owner alive.
#[derive(Debug, Clone)]
pub struct LedgerHandle {
    entries: Arc<Entries>,
}

impl LedgerHandle {
    /// Charges `bytes` of a kind, as [`Ledger::charge`] does.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the sum would exceed the limit. Nothing is charged then.
    pub fn charge(&self, kind: Kind, bytes: usize) -> Result<Charge, LimitExceeded> {
        let mut charge = self.empty_charge(kind);
        charge.resize(bytes)?;
        Ok(charge)
    }

    /// Route of the request that owns the ledger. `None` if the owner is no request.
    #[must_use]
    pub fn route(&self) -> Option<&Arc<Route>> {
        match self.entries.owner() {
            Owner::Request { route, .. } => Some(route),
            Owner::Connection | Owner::Host => None,
        }
    }

    /// Marks the owner as ended, for an owner that outlives its work.
    pub fn end(&self) {
        // The first time counts.
        let _ = self.entries.ended.set(Instant::now());
    }

    /// Returns a charge of zero bytes, as [`Ledger::empty_charge`] does.
    #[must_use]
    pub fn empty_charge(&self, kind: Kind) -> Charge {
        self.entries.ledgers.in_use.count(kind);
        Charge {
            entries: Arc::clone(&self.entries),
            kind,
            bytes: 0,
        }
    }
}

impl Entries {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub(crate) fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Time since the owner ended, if it has.
    pub(crate) fn ended_ago(&self) -> Option<Duration> {
        self.ended.get().map(Instant::elapsed)
    }

    pub(crate) fn balance(&self) -> Balance {
        Balance(std::array::from_fn(|kind| {
            self.kinds[kind].load(Ordering::Relaxed)
        }))
    }

    fn add(&self, kind: Kind, bytes: usize) -> Result<(), LimitExceeded> {
        let fits = |total: usize| {
            let sum = total.checked_add(bytes)?;
            (sum <= self.limit_bytes).then_some(sum)
        };
        let before = self
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| LimitExceeded {
                kind,
                limit_bytes: self.limit_bytes,
            })?;
        self.peak.fetch_max(before + bytes, Ordering::Relaxed);
        self.kinds[kind as usize].fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn subtract(&self, kind: Kind, bytes: usize) {
        self.kinds[kind as usize].fetch_sub(bytes, Ordering::Relaxed);
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        // The budget is released before the registry counts the owner as gone.
        self.reservations.get_mut().clear();
        self.ledgers.unregister(self.id, &self.owner);
    }
}

/// Bytes of one kind, charged to a ledger. Dropping the charge releases them.
#[derive(Debug)]
pub struct Charge {
    entries: Arc<Entries>,
    kind: Kind,
    bytes: usize,
}

impl Charge {
    /// Charged bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes the charge to `bytes`.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the sum would exceed the limit. The charge stays the same then.
    pub fn resize(&mut self, bytes: usize) -> Result<(), LimitExceeded> {
        if bytes > self.bytes {
            self.entries.add(self.kind, bytes - self.bytes)?;
        } else {
            self.entries.subtract(self.kind, self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Returns a charge of zero bytes and the same kind, on the same ledger.
    #[must_use]
    pub fn empty_sibling(&self) -> Charge {
        let entries = Arc::clone(&self.entries);
        LedgerHandle { entries }.empty_charge(self.kind)
    }

    /// Adds `bytes` to the charge.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the sum would exceed the limit. The charge stays the same then.
    pub fn grow(&mut self, bytes: usize) -> Result<(), LimitExceeded> {
        self.resize(self.bytes.saturating_add(bytes))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.entries.subtract(self.kind, self.bytes);
        self.entries.ledgers.in_use.uncount(self.kind);
    }
}

/// Ledgers of one host that are open or still have charges. [`Ledger::new`] adds each ledger to them.
#[derive(Debug, Default)]
pub struct LiveLedgers {
    next_id: AtomicU64,
    /// Ledgers by number, oldest first. Several maps reduce contention between cores.
    live: [Mutex<BTreeMap<u64, Weak<Entries>>>; SHARDS],
    in_use: UsageCounts,
}

const SHARDS: usize = 16;

impl LiveLedgers {
    /// Counts of the requests, stores, bodies and files in use.
    #[must_use]
    pub fn in_use(&self) -> &UsageCounts {
        &self.in_use
    }

    /// Returns the live ledgers. The caller drops them outside the locks, because dropping the last reference takes a
    /// lock.
    pub(crate) fn live(&self) -> Vec<Arc<Entries>> {
        let mut live = Vec::new();
        for shard in &self.live {
            live.extend(shard.lock().values().filter_map(Weak::upgrade));
        }
        live
    }

    fn register(&self, entries: &Arc<Entries>) {
        if let Owner::Request { .. } = entries.owner() {
            self.in_use.count_request();
        }
        self.shard(entries.id())
            .insert(entries.id(), Arc::downgrade(entries));
    }

    fn unregister(&self, id: u64, owner: &Owner) {
        self.shard(id).remove(&id);
        if let Owner::Request { .. } = owner {
            self.in_use.uncount_request();
        }
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, BTreeMap<u64, Weak<Entries>>> {
        self.live[id as usize % SHARDS].lock()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn ledger(ledgers: &Arc<LiveLedgers>, limit_bytes: usize) -> Ledger {
        Ledger::new(ledgers, Owner::Connection, limit_bytes)
    }

    #[test]
    fn the_limit_is_of_the_sum_of_all_kinds() {
        let ledgers = Arc::default();
        let ledger = ledger(&ledgers, 100);
        let guest = ledger.charge(Kind::GuestMemory, 60).unwrap();
        let mut buffer = ledger.charge(Kind::Buffers, 40).unwrap();
        let refused = ledger.charge(Kind::Files, 1).unwrap_err();
        assert_eq!((refused.kind, refused.limit_bytes), (Kind::Files, 100));
        assert!(buffer.resize(41).is_err());
        assert!(buffer.grow(usize::MAX).is_err());
        assert_eq!(buffer.bytes(), 40, "a refusal changes nothing");
        drop(guest);
        buffer.grow(60).unwrap();
        assert_eq!(ledger.balance().of(Kind::Buffers), 100);
        drop(buffer);
        assert_eq!((ledger.balance().total(), ledger.peak_bytes()), (0, 100));
    }

    proptest! {
        #[test]
        fn whatever_was_charged_the_end_is_zero(
            steps in proptest::collection::vec((0..12_usize, 0..2000_usize, 0..2000_usize), 0..50)
        ) {
            let ledgers: Arc<LiveLedgers> = Arc::default();
            let ledger = ledger(&ledgers, 10_000);
            let mut charges = Vec::new();
            for (kind, bytes, resized) in steps {
                if let Ok(mut charge) = ledger.charge(Kind::ALL[kind], bytes) {
                    let _ = charge.resize(resized);
                    charges.push(charge);
                }
                let held: usize = charges.iter().map(Charge::bytes).sum();
                prop_assert_eq!(ledger.balance().total(), held);
                prop_assert!(held <= 10_000);
            }
            drop(charges);
            prop_assert_eq!(ledger.balance().total(), 0);
        }
    }
}
