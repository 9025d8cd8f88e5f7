//! What one request, or one connection, makes the process hold: charged where it is taken, given back by drop.
//!
//! A [`Ledger`] belongs to one owner. Whatever is held for it is a [`Charge`], a token that carries its bytes and
//! gives them back when it is dropped, on whatever way the request ends. A charge that would take a ledger past
//! its limit is refused, so the limit bounds the sum of all kinds, not one of them.

pub(crate) mod accounts;
pub(crate) mod budget;
pub(crate) mod counts;
pub(crate) mod meter;
pub(crate) mod record;
pub(crate) mod route;

use crate::ledger::accounts::Accounts;
use crate::ledger::budget::Reservation;
use crate::ledger::route::Route;
use serde::Serialize;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The kinds of memory that a request or a connection holds. Limits, logs, metrics and tests use these names and
/// no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Linear memories of the request's instances, summed.
    GuestMemory,
    /// Tables of the request's instances, summed.
    Tables,
    /// The fiber stack on which the guest runs: all of it, since a guest may touch all of it.
    Stack,
    /// The wasmtime store and instance on the host's side.
    Instance,
    /// The request's head, and what is remembered of it for the log.
    Head,
    /// The response's head and the body parts that the guest made.
    Response,
    /// Entries of the resource table, each with what it holds on the host's side.
    Handles,
    /// Bytes copied out of the guest, over all its calls.
    Lifted,
    /// Bytes between file and socket.
    Buffers,
    /// Open files, in the kernel and here.
    Files,
    /// A connection's own state: task, read buffer, parser, response head.
    Connection,
    /// What the kernel may keep for a connection, both ways.
    Socket,
}

/// Where memory of a kind lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the allocator's heap.
    Heap,
    /// In the pool of instances, mapped once for the process.
    Pool,
    /// In the kernel, where no figure of the process shows it.
    Kernel,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 12] = [
        Kind::GuestMemory,
        Kind::Tables,
        Kind::Stack,
        Kind::Instance,
        Kind::Head,
        Kind::Response,
        Kind::Handles,
        Kind::Lifted,
        Kind::Buffers,
        Kind::Files,
        Kind::Connection,
        Kind::Socket,
    ];

    /// The name in metrics and JSON: lower case, with `_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::GuestMemory => "guest_memory",
            Kind::Tables => "tables",
            Kind::Stack => "stack",
            Kind::Instance => "instance",
            Kind::Head => "head",
            Kind::Response => "response",
            Kind::Handles => "handles",
            Kind::Lifted => "lifted",
            Kind::Buffers => "buffers",
            Kind::Files => "files",
            Kind::Connection => "connection",
            Kind::Socket => "socket",
        }
    }

    /// Where memory of this kind lies.
    #[must_use]
    pub fn place(self) -> Place {
        match self {
            Kind::GuestMemory | Kind::Tables | Kind::Stack => Place::Pool,
            Kind::Files | Kind::Socket => Place::Kernel,
            _ => Place::Heap,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::GuestMemory => "guest memory",
            Kind::Lifted => "lifted bytes",
            kind => kind.name(),
        })
    }
}

/// Bytes by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance([usize; Kind::ALL.len()]);

impl Balance {
    /// Bytes of that kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> usize {
        self.0[kind as usize]
    }

    /// Bytes of all kinds.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// Bytes of all kinds that lie there.
    #[must_use]
    pub fn at(&self, place: Place) -> usize {
        let kinds = Kind::ALL.iter().filter(|kind| kind.place() == place);
        kinds.map(|kind| self.of(*kind)).sum()
    }

    /// The kinds that are not zero, with their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, usize)> + '_ {
        let kinds = Kind::ALL.iter().map(|kind| (*kind, self.of(*kind)));
        kinds.filter(|(_, bytes)| *bytes > 0)
    }

    pub(crate) fn add(&mut self, other: &Balance) {
        for (sum, bytes) in self.0.iter_mut().zip(other.0) {
            *sum += bytes;
        }
    }
}

impl Serialize for Balance {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Kind::ALL.iter().map(|kind| (kind.name(), self.of(*kind))))
    }
}

/// Whose ledger it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// A request, by its method and the pattern of its target.
    Request {
        /// The method.
        method: http::Method,
        /// Its route, as in `/api/media/:id`.
        route: Arc<Route>,
    },
    /// A connection.
    Connection,
    /// The host itself, as in a probe.
    Host,
}

/// The account of one request or connection. Its end is the owner's end: what is not given back by then is
/// counted as unreturned until it is.
#[derive(Debug)]
pub struct Ledger {
    entries: Arc<Entries>,
}

/// A charge would take a ledger past its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request would hold more than {limit_bytes} bytes, with {kind}")]
pub struct Exceeded {
    /// What was to be charged.
    pub kind: Kind,
    /// The ledger's limit.
    pub limit_bytes: usize,
}

/// What a ledger and its charges share.
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
    /// What was set aside of the budget; it goes back with the last charge, not with the ledger.
    reservations: Mutex<Vec<Reservation>>,
    accounts: Arc<Accounts>,
}

impl Ledger {
    /// A ledger in these accounts, for that owner; its charges may come to `limit_bytes` together.
    #[must_use]
    pub fn new(accounts: &Arc<Accounts>, owner: Owner, limit_bytes: usize) -> Self {
        let entries = Arc::new(Entries {
            id: accounts.next_ledger_id(),
            owner,
            since: Instant::now(),
            limit_bytes,
            total: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            kinds: Default::default(),
            ended: OnceLock::new(),
            reservations: Mutex::new(Vec::new()),
            accounts: Arc::clone(accounts),
        });
        accounts.enter(&entries);
        Ledger { entries }
    }

    /// Charges bytes of a kind until the token is dropped.
    ///
    /// # Errors
    /// [`Exceeded`], and nothing is charged, when the sum would pass the limit.
    pub fn charge(&self, kind: Kind, bytes: usize) -> Result<Charge, Exceeded> {
        self.handle().charge(kind, bytes)
    }

    /// A charge of nothing, which may grow.
    pub(crate) fn empty_charge(&self, kind: Kind) -> Charge {
        self.handle().empty_charge(kind)
    }

    /// A handle for charging this ledger, for those who serve its owner and may outlive it.
    #[must_use]
    pub fn handle(&self) -> LedgerHandle {
        LedgerHandle {
            entries: Arc::clone(&self.entries),
        }
    }

    /// Bytes held now, by kind.
    #[must_use]
    pub fn balance(&self) -> Balance {
        self.entries.balance()
    }

    /// When it was begun.
    pub(crate) fn since(&self) -> Instant {
        self.entries.since
    }

    /// The most that was held at one time, in bytes.
    #[must_use]
    pub fn peak_bytes(&self) -> usize {
        self.entries.peak.load(Ordering::Relaxed)
    }

    /// Keeps what was set aside of the budget until the last charge has been given back.
    pub(crate) fn keep(&self, reservation: Reservation) {
        let reservations = &self.entries.reservations;
        let mut reservations = reservations.lock().unwrap_or_else(PoisonError::into_inner);
        reservations.push(reservation);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // Where nobody else has anything of it, it goes with this.
        if Arc::strong_count(&self.entries) > 1 {
            // It is set here and nowhere else.
            let _ = self.entries.ended.set(Instant::now());
        }
    }
}

/// Charges a ledger without being its owner.
#[derive(Debug, Clone)]
pub struct LedgerHandle {
    entries: Arc<Entries>,
}

impl LedgerHandle {
    /// As [`Ledger::charge`].
    ///
    /// # Errors
    /// As [`Ledger::charge`].
    pub fn charge(&self, kind: Kind, bytes: usize) -> Result<Charge, Exceeded> {
        let mut charge = self.empty_charge(kind);
        charge.resize(bytes)?;
        Ok(charge)
    }

    /// The route of the request that owns the ledger; none where a request does not.
    pub(crate) fn route(&self) -> Option<&Arc<Route>> {
        match self.entries.owner() {
            Owner::Request { route, .. } => Some(route),
            Owner::Connection | Owner::Host => None,
        }
    }

    /// Says that the owner has ended, for an owner that does not say so itself.
    pub(crate) fn end(&self) {
        // What was said first counts.
        let _ = self.entries.ended.set(Instant::now());
    }

    pub(crate) fn empty_charge(&self, kind: Kind) -> Charge {
        self.entries.accounts.count_charge(kind);
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

    /// How long ago the owner ended, if it has.
    pub(crate) fn ended_ago(&self) -> Option<Duration> {
        self.ended.get().map(Instant::elapsed)
    }

    pub(crate) fn balance(&self) -> Balance {
        Balance(std::array::from_fn(|kind| {
            self.kinds[kind].load(Ordering::Relaxed)
        }))
    }

    fn add(&self, kind: Kind, bytes: usize) -> Result<(), Exceeded> {
        let fits = |total: usize| {
            let sum = total.checked_add(bytes)?;
            (sum <= self.limit_bytes).then_some(sum)
        };
        let before = self
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| Exceeded {
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
        // Before it is said that nothing is held any more.
        let reservations = self.reservations.get_mut();
        reservations.unwrap_or_else(PoisonError::into_inner).clear();
        self.accounts.leave(self.id, &self.owner);
    }
}

/// Bytes of one kind that are held on a ledger for as long as this token lives.
#[derive(Debug)]
pub struct Charge {
    entries: Arc<Entries>,
    kind: Kind,
    bytes: usize,
}

impl Charge {
    /// The bytes charged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges so many bytes from now on.
    ///
    /// # Errors
    /// [`Exceeded`], and nothing changes, when the sum would pass the limit.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Exceeded> {
        if bytes > self.bytes {
            self.entries.add(self.kind, bytes - self.bytes)?;
        } else {
            self.entries.subtract(self.kind, self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// A charge of nothing on the same ledger, of the same kind.
    pub(crate) fn empty_sibling(&self) -> Charge {
        let entries = Arc::clone(&self.entries);
        LedgerHandle { entries }.empty_charge(self.kind)
    }

    /// Charges so many more bytes.
    ///
    /// # Errors
    /// As [`Charge::resize`].
    pub fn grow(&mut self, bytes: usize) -> Result<(), Exceeded> {
        self.resize(self.bytes.saturating_add(bytes))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.entries.subtract(self.kind, self.bytes);
        self.entries.accounts.uncount_charge(self.kind);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn ledger(accounts: &Arc<Accounts>, limit_bytes: usize) -> Ledger {
        Ledger::new(accounts, Owner::Connection, limit_bytes)
    }

    #[test]
    fn the_limit_is_of_the_sum_of_all_kinds() {
        let accounts = Arc::default();
        let ledger = ledger(&accounts, 100);
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

    #[test]
    fn what_outlives_its_owner_is_unreturned_until_it_is() {
        let accounts: Arc<Accounts> = Arc::default();
        let ledger = ledger(&accounts, 100);
        let charge = ledger.handle().charge(Kind::Buffers, 7).unwrap();
        assert_eq!(accounts.survey().unreturned.total(), 0);
        drop(ledger);
        assert_eq!(accounts.survey().unreturned.of(Kind::Buffers), 7);
        drop(charge);
        assert_eq!(accounts.survey().unreturned.total(), 0);
    }

    #[test]
    fn names_are_unique() {
        let mut names = Kind::ALL.map(Kind::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    proptest! {
        #[test]
        fn whatever_was_charged_the_end_is_zero(
            steps in proptest::collection::vec((0..12_usize, 0..2000_usize, 0..2000_usize), 0..50)
        ) {
            let accounts: Arc<Accounts> = Arc::default();
            let ledger = ledger(&accounts, 10_000);
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
