//! Registry of a host: the entries of its ledgers, its routes, and the counts of its ended requests.

use crate::access_log::line::{AccessLog, AccessLogFields, TracingAccessLog};
use crate::budget::Reservation;
use crate::kind::{Balance, Kind};
use crate::outcome::Outcome;
use crate::request_counts::{RequestCount, RequestCounts};
#[cfg(doc)]
use crate::route::ROUTES;
use crate::route::{Route, RouteCount, Routes};
#[cfg(doc)]
use crate::top_targets::TOP_TARGETS_BYTES;
use crate::top_targets::{TargetBytes, TopTargets};
use crate::usage_counts::UsageCounts;
use http::{Method, StatusCode};
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// Registry of one host's ledgers. It also counts the ended requests, and keeps the routes.
#[derive(Debug, Default)]
pub struct LedgerRegistry {
    next_id: AtomicU64,
    /// Entries of the ledgers that are open or still have charges, by number, oldest first. Several maps reduce
    /// contention between cores.
    live: [Mutex<BTreeMap<u64, Weak<Entries>>>; SHARDS],
    in_use: UsageCounts,
    request_counts: RequestCounts,
    response_body_bytes: AtomicU64,
    response_cache_hits: AtomicU64,
    response_cache_misses: AtomicU64,
    access_log: OnceLock<Arc<dyn AccessLog>>,
    observers: RwLock<Vec<Arc<dyn Observer>>>,
    routes: Routes,
    /// Empty until somebody wants to know them.
    top_targets: OnceLock<TopTargets>,
}

const SHARDS: usize = 16;

/// Owner of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// A request.
    Request {
        /// Method of the request.
        method: Method,
        /// Route of the request's target, as in `/api/media/:id`.
        route: Arc<Route>,
    },
    /// A connection.
    Connection,
    /// The host itself, as for a probe.
    Host,
}

/// Observer of the end of each request, for histograms. Register one with [`LedgerRegistry::observe_once`].
pub trait Observer: Any + std::fmt::Debug + Send + Sync {
    /// Called when a request ends. `duration` counts from the end of its head, and `peak_bytes` is the maximum memory
    /// it held.
    fn on_request_end(&self, outcome: Outcome, duration: Duration, peak_bytes: usize);
}

impl LedgerRegistry {
    /// Counts of the requests, stores, bodies and files in use.
    #[must_use]
    pub fn in_use(&self) -> &UsageCounts {
        &self.in_use
    }

    /// Waits until no request holds any memory.
    pub async fn idle(&self) {
        self.in_use.idle().await;
    }

    /// Number of ended requests with one outcome.
    #[must_use]
    pub fn ended_requests(&self, outcome: Outcome) -> u64 {
        self.request_counts.of(outcome)
    }

    /// Number of ended requests by outcome, method and class of the status code. Includes the combinations that did not
    /// occur.
    pub fn request_counts(&self) -> impl Iterator<Item = RequestCount> + '_ {
        self.request_counts.all()
    }

    /// Bytes of response bodies sent so far, including those of requests in flight.
    #[must_use]
    pub fn response_body_bytes(&self) -> u64 {
        self.response_body_bytes.load(Ordering::Relaxed)
    }

    /// Number of requests that the response cache answered, without an instance.
    #[must_use]
    pub fn response_cache_hits(&self) -> u64 {
        self.response_cache_hits.load(Ordering::Relaxed)
    }

    /// Counts bytes of a response body that were sent.
    pub(crate) fn count_response_body_bytes(&self, bytes: usize) {
        self.response_body_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Starts to count bytes by target, for [`LedgerRegistry::top_targets`]. It takes [`TOP_TARGETS_BYTES`] at most.
    pub fn track_targets(&self) {
        self.top_targets.get_or_init(TopTargets::default);
    }

    /// Returns the targets to which most bytes were sent, in descending order, `max_count` at most. Empty unless
    /// [`LedgerRegistry::track_targets`] was called. Only successful responses count, at their end.
    #[must_use]
    pub fn top_targets(&self, max_count: usize) -> Vec<TargetBytes> {
        let targets = self.top_targets.get();
        targets.map_or_else(Vec::new, |targets| targets.top(max_count))
    }

    /// Adds the bytes of a successful response to those of its target.
    pub(crate) fn count_target_bytes(&self, target: &str, bytes: u64) {
        if let Some(targets) = self.top_targets.get() {
            targets.add(target, bytes);
        }
    }

    pub(crate) fn count_response_cache_hit(&self) {
        self.response_cache_hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of requests for which the component ran.
    #[must_use]
    pub fn response_cache_misses(&self) -> u64 {
        self.response_cache_misses.load(Ordering::Relaxed)
    }

    pub(crate) fn count_response_cache_miss(&self) {
        self.response_cache_misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the access log, for all further requests. It is set once, before the first request.
    ///
    /// # Errors
    /// The access log, if there is one already.
    pub fn set_access_log(&self, access_log: Arc<dyn AccessLog>) -> Result<(), Arc<dyn AccessLog>> {
        self.access_log.set(access_log)
    }

    pub(crate) fn access_log(&self) -> Option<&Arc<dyn AccessLog>> {
        self.access_log.get()
    }

    /// Fields that the access log has.
    #[must_use]
    pub fn access_log_fields(&self) -> AccessLogFields {
        match self.access_log() {
            Some(log) => log.fields(),
            None => TracingAccessLog.fields(),
        }
    }

    /// Number of ended requests by route and class of the status code, for each combination that occurred.
    #[must_use]
    pub fn route_counts(&self) -> Vec<RouteCount> {
        let routes = self.routes();
        routes.iter().flat_map(Route::counts).collect()
    }

    /// Returns the routes of all requests so far, [`ROUTES`] and one at most.
    pub(crate) fn routes(&self) -> Vec<Arc<Route>> {
        self.routes.all()
    }

    /// Returns the route of a path. A query is ignored.
    #[must_use]
    pub fn route(&self, path: &str) -> Arc<Route> {
        self.routes.of(path)
    }

    /// Counts the end of a request, and calls the observers.
    pub(crate) fn count_end(
        &self,
        outcome: Outcome,
        method: &Method,
        status: Option<StatusCode>,
        duration: Duration,
        peak_bytes: usize,
    ) {
        self.request_counts.add(outcome, method, status);
        for observer in &*self.observers.read() {
            observer.on_request_end(outcome, duration, peak_bytes);
        }
    }

    /// Registers an observer of type `O`. Returns the same one for every call with that type.
    pub fn observe_once<O: Observer + Default>(&self) -> Arc<O> {
        let mut observers = self.observers.write();
        let known = observers.iter().find_map(|observer| {
            let observer: Arc<dyn Any + Send + Sync> = Arc::clone(observer) as _;
            observer.downcast().ok()
        });
        known.unwrap_or_else(|| {
            let observer = Arc::new(O::default());
            observers.push(Arc::clone(&observer) as _);
            observer
        })
    }

    /// Returns the live entries. The caller drops them outside the locks, because dropping the last reference takes a
    /// lock.
    pub(crate) fn live(&self) -> Vec<Arc<Entries>> {
        let mut live = Vec::new();
        for shard in &self.live {
            live.extend(shard.lock().values().filter_map(Weak::upgrade));
        }
        live
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, BTreeMap<u64, Weak<Entries>>> {
        self.live[id as usize % SHARDS].lock()
    }
}

/// State shared by a ledger and its charges.
#[derive(Debug)]
pub(crate) struct Entries {
    pub(crate) id: u64,
    pub(crate) owner: Owner,
    pub(crate) since: Instant,
    pub(crate) registry: Arc<LedgerRegistry>,
    limit_bytes: usize,
    total: AtomicUsize,
    peak: AtomicUsize,
    kinds: [AtomicUsize; Kind::ALL.len()],
    has_ended: AtomicBool,
    /// Reservations of the budget, released with the last charge and not with the ledger.
    reservations: Mutex<Vec<Reservation>>,
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

impl Entries {
    /// Returns the entries of a new ledger, which the registry then knows.
    pub(crate) fn register(
        registry: &Arc<LedgerRegistry>,
        owner: Owner,
        limit_bytes: usize,
    ) -> Arc<Self> {
        let entries = Arc::new(Entries {
            id: registry.next_id.fetch_add(1, Ordering::Relaxed),
            owner,
            since: Instant::now(),
            registry: Arc::clone(registry),
            limit_bytes,
            total: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            kinds: Default::default(),
            has_ended: AtomicBool::new(false),
            reservations: Mutex::new(Vec::new()),
        });
        if entries.request().is_some() {
            registry.in_use.count_request();
        }
        let (id, live) = (entries.id, Arc::downgrade(&entries));
        registry.shard(id).insert(id, live);
        entries
    }

    /// Method and route, if the owner is a request.
    pub(crate) fn request(&self) -> Option<(&Method, &Arc<Route>)> {
        match &self.owner {
            Owner::Request { method, route } => Some((method, route)),
            Owner::Connection | Owner::Host => None,
        }
    }

    /// Bytes of all kinds that it holds now.
    pub(crate) fn total_bytes(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    pub(crate) fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Whether the owner has ended, so that its memory is leaked.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Marks the owner as ended.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn balance(&self) -> Balance {
        Balance(std::array::from_fn(|kind| {
            self.kinds[kind].load(Ordering::Relaxed)
        }))
    }

    /// Holds a reservation until the last charge has been dropped.
    pub(crate) fn keep(&self, reservation: Reservation) {
        self.reservations.lock().push(reservation);
    }

    pub(crate) fn add(&self, kind: Kind, bytes: usize) -> Result<(), LimitExceeded> {
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

    pub(crate) fn subtract(&self, kind: Kind, bytes: usize) {
        self.kinds[kind as usize].fetch_sub(bytes, Ordering::Relaxed);
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        // The budget is released before the registry counts the owner as gone.
        self.reservations.get_mut().clear();
        self.registry.shard(self.id).remove(&self.id);
        if self.request().is_some() {
            self.registry.in_use.uncount_request();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Nobody;

    impl Observer for Nobody {
        fn on_request_end(&self, _: Outcome, _: Duration, _: usize) {}
    }

    #[test]
    fn an_observer_of_one_type_is_told_once() {
        let registry = LedgerRegistry::default();
        let (one, other) = (
            registry.observe_once::<Nobody>(),
            registry.observe_once::<Nobody>(),
        );
        assert!(Arc::ptr_eq(&one, &other));
    }
}
