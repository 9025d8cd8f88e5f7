//! Ledger of one owner. Each thing held for the owner has a [`Charge`], a token that releases its bytes when it is
//! dropped.
//!
//! A charge that would exceed the ledger's limit fails. The limit applies to the sum of all kinds.

use crate::budget::Reservation;
use crate::kind::{Balance, Kind};
use crate::registry::{Entries, LedgerRegistry, LimitExceeded, Owner};
use crate::route::Route;
use std::sync::Arc;

/// Account of the memory that one request or connection holds, with a limit on the sum.
///
/// The owner ends when its ledger is dropped. Charges that outlive the ledger are counted as leaked until they are
/// dropped.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) entries: Arc<Entries>,
}

impl Ledger {
    /// Opens a ledger for `owner`. `limit_bytes` is the maximum sum of its charges.
    #[must_use]
    pub fn new(registry: &Arc<LedgerRegistry>, owner: Owner, limit_bytes: usize) -> Self {
        Ledger {
            entries: Entries::register(registry, owner, limit_bytes),
        }
    }

    /// Charges `bytes` of a kind until the returned [`Charge`] is dropped.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the sum would exceed the limit. Nothing is charged then.
    pub fn charge(&self, kind: Kind, bytes: usize) -> Result<Charge, LimitExceeded> {
        Charge::new(&self.entries, kind, bytes)
    }

    /// Returns a charge of zero bytes, which can grow.
    #[must_use]
    pub fn empty_charge(&self, kind: Kind) -> Charge {
        Charge::empty(&self.entries, kind)
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

    /// Holds a reservation of the budget until the last charge has been dropped.
    pub fn keep(&self, reservation: Reservation) {
        self.entries.keep(reservation);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // With no other reference, the entries are dropped with this ledger.
        if Arc::strong_count(&self.entries) > 1 {
            self.entries.end();
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
        Charge::new(&self.entries, kind, bytes)
    }

    /// Route of the request that owns the ledger. `None` if the owner is no request.
    #[must_use]
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.entries.request().map(|(_, route)| route)
    }

    /// Marks the owner as ended, for an owner that outlives its work.
    pub fn end(&self) {
        self.entries.end();
    }

    /// Returns a charge of zero bytes, as [`Ledger::empty_charge`] does.
    #[must_use]
    pub fn empty_charge(&self, kind: Kind) -> Charge {
        Charge::empty(&self.entries, kind)
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
    fn new(entries: &Arc<Entries>, kind: Kind, bytes: usize) -> Result<Self, LimitExceeded> {
        let mut charge = Charge::empty(entries, kind);
        charge.resize(bytes)?;
        Ok(charge)
    }

    fn empty(entries: &Arc<Entries>, kind: Kind) -> Self {
        entries.registry.in_use().count(kind);
        Charge {
            entries: Arc::clone(entries),
            kind,
            bytes: 0,
        }
    }

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
        Charge::empty(&self.entries, self.kind)
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
        self.entries.registry.in_use().uncount(self.kind);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn ledger(limit_bytes: usize) -> Ledger {
        Ledger::new(&Arc::default(), Owner::Connection, limit_bytes)
    }

    #[test]
    fn the_limit_is_of_the_sum_of_all_kinds() {
        let ledger = ledger(100);
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
        assert_eq!(
            (ledger.balance().total(), ledger.entries.peak_bytes()),
            (0, 100)
        );
    }

    proptest! {
        #[test]
        fn whatever_was_charged_the_end_is_zero(
            steps in proptest::collection::vec((0..12_usize, 0..2000_usize, 0..2000_usize), 0..50)
        ) {
            let ledger = ledger(10_000);
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
