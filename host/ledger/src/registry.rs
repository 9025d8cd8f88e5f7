//! Registry of the ledgers, the routes, and the counts of ended requests.

use crate::kind::Balance;
use crate::ledger::{LiveLedgers, Owner};
use crate::outcome::Outcome;
use crate::request_counts::{RequestCount, RequestCounts};
use crate::route::{Route, Routes};
use crate::usage_counts::UsageCounts;
use parking_lot::RwLock;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Registry of one host's ledgers. It also counts the ended requests, and keeps the routes.
#[derive(Debug, Default)]
pub struct LedgerRegistry {
    ledgers: Arc<LiveLedgers>,
    request_counts: RequestCounts,
    response_body_bytes: AtomicU64,
    response_cache_hits: AtomicU64,
    observers: RwLock<Vec<Arc<dyn Observer>>>,
    routes: Routes,
}

/// Figures of one request at its end.
#[derive(Debug)]
pub(crate) struct RequestEnd<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) method: &'a http::Method,
    pub(crate) status: Option<http::StatusCode>,
    pub(crate) body_bytes: u64,
    pub(crate) duration: Duration,
    pub(crate) peak_bytes: usize,
}

/// Observer of the end of each request, for histograms. Register one with [`LedgerRegistry::observe_once`].
pub trait Observer: Any + std::fmt::Debug + Send + Sync {
    /// Called when a request ends. `duration` counts from the end of its head, and `peak_bytes` is the maximum memory
    /// it held.
    fn on_request_end(&self, outcome: Outcome, duration: Duration, peak_bytes: usize);
}

/// Sums of all ledgers at one moment.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// Memory of the live requests.
    pub requests: Balance,
    /// Memory of the connections.
    pub connections: Balance,
    /// Leaked memory: charged to requests and connections that have ended.
    pub leaked: Balance,
    /// Number of live requests.
    pub live_requests: usize,
    /// Number of open connections.
    pub live_connections: usize,
    /// Memory of the requests, by route.
    pub by_route: Vec<RouteSnapshot>,
}

/// Sums of the ledgers of one route's requests.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RouteSnapshot {
    /// Route of the requests.
    pub route: Arc<Route>,
    /// Number of ended requests that still have charges.
    pub leaked_requests: usize,
    /// Leaked memory: charged to ended requests.
    pub leaked: Balance,
    /// Number of live requests.
    pub live_requests: usize,
    /// Memory of the live requests.
    pub live: Balance,
    /// Age of the oldest live request.
    pub oldest: Duration,
}

/// A request that holds memory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LiveRequest {
    /// Number of the request, counted from the start of the process.
    pub id: u64,
    /// Method of the request.
    pub method: http::Method,
    /// Route of the request's target.
    pub route: Arc<Route>,
    /// Time since its head was complete.
    pub age: Duration,
    /// Memory that it holds now, by kind.
    pub balance: Balance,
    /// Maximum memory that it held at one time, in bytes.
    pub peak_bytes: usize,
    /// Whether the request has ended, so that its memory is leaked.
    pub has_ended: bool,
}

impl Snapshot {
    /// Sum of the requests, the connections and the leaked memory.
    #[must_use]
    pub fn total(&self) -> Balance {
        let mut total = self.requests;
        total.add(&self.connections);
        total.add(&self.leaked);
        total
    }
}

impl LedgerRegistry {
    /// Ledgers that are open or still have charges. [`Ledger::new`](crate::Ledger::new) needs them.
    #[must_use]
    pub fn live_ledgers(&self) -> &Arc<LiveLedgers> {
        &self.ledgers
    }

    /// Counts of the requests, stores, bodies and files in use.
    #[must_use]
    pub fn in_use(&self) -> &UsageCounts {
        self.ledgers.in_use()
    }

    /// Waits until no request holds any memory.
    pub async fn idle(&self) {
        self.in_use().idle().await;
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

    /// Bytes of response bodies sent, for requests that have ended.
    #[must_use]
    pub fn response_body_bytes(&self) -> u64 {
        self.response_body_bytes.load(Ordering::Relaxed)
    }

    /// Number of requests that the response cache answered, without an instance.
    #[must_use]
    pub fn response_cache_hits(&self) -> u64 {
        self.response_cache_hits.load(Ordering::Relaxed)
    }

    pub(crate) fn count_response_cache_hit(&self) {
        self.response_cache_hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the sums of all live ledgers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut by_route: BTreeMap<Arc<str>, RouteSnapshot> = BTreeMap::new();
        for entries in self.ledgers.live() {
            let balance = entries.balance();
            let has_ended = entries.ended_ago().is_some();
            match entries.owner() {
                _ if has_ended => snapshot.leaked.add(&balance),
                Owner::Host => {}
                Owner::Connection => {
                    snapshot.live_connections += 1;
                    snapshot.connections.add(&balance);
                }
                Owner::Request { .. } => {
                    snapshot.live_requests += 1;
                    snapshot.requests.add(&balance);
                }
            }
            let Owner::Request { route, .. } = entries.owner() else {
                continue;
            };
            let route_snapshot = by_route
                .entry(Arc::clone(&route.pattern))
                .or_insert_with(|| RouteSnapshot::new(route));
            if has_ended {
                route_snapshot.leaked_requests += 1;
                route_snapshot.leaked.add(&balance);
            } else {
                route_snapshot.live_requests += 1;
                route_snapshot.live.add(&balance);
                route_snapshot.oldest = route_snapshot.oldest.max(entries.age());
            }
        }
        snapshot.by_route = by_route.into_values().collect();
        snapshot
    }

    /// Returns the requests that hold memory, oldest first, `max_count` at most.
    #[must_use]
    pub fn live_requests(&self, max_count: usize) -> Vec<LiveRequest> {
        let mut live = self.ledgers.live();
        live.sort_unstable_by_key(|entries| entries.id());
        live.iter()
            .filter_map(|entries| match entries.owner() {
                Owner::Connection | Owner::Host => None,
                Owner::Request { method, route } => Some(LiveRequest {
                    id: entries.id(),
                    method: method.clone(),
                    route: Arc::clone(route),
                    age: entries.age(),
                    balance: entries.balance(),
                    peak_bytes: entries.peak_bytes(),
                    has_ended: entries.ended_ago().is_some(),
                }),
            })
            .take(max_count)
            .collect()
    }

    /// Returns the routes of all requests so far, [`ROUTES`](crate::ROUTES) and one at most.
    #[must_use]
    pub fn routes(&self) -> Vec<Arc<Route>> {
        self.routes.all()
    }

    /// Returns the route of a path. A query is ignored.
    #[must_use]
    pub fn route(&self, path: &str) -> Arc<Route> {
        self.routes.of(path)
    }

    /// Counts the end of a request, and calls the observers.
    pub(crate) fn count_end(&self, end: &RequestEnd<'_>) {
        let RequestEnd {
            outcome,
            method,
            status,
            body_bytes,
            duration,
            peak_bytes,
        } = *end;
        self.response_body_bytes
            .fetch_add(body_bytes, Ordering::Relaxed);
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
}

impl RouteSnapshot {
    fn new(route: &Arc<Route>) -> Self {
        RouteSnapshot {
            route: Arc::clone(route),
            leaked_requests: 0,
            leaked: Balance::default(),
            live_requests: 0,
            live: Balance::default(),
            oldest: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kind::Kind;
    use crate::ledger::Ledger;

    #[test]
    fn what_outlives_its_owner_is_unreturned_until_it_is() {
        let registry = LedgerRegistry::default();
        let ledger = Ledger::new(registry.live_ledgers(), Owner::Connection, 100);
        let charge = ledger.handle().charge(Kind::Buffers, 7).unwrap();
        assert_eq!(registry.snapshot().leaked.total(), 0);
        drop(ledger);
        assert_eq!(registry.snapshot().leaked.of(Kind::Buffers), 7);
        drop(charge);
        assert_eq!(registry.snapshot().leaked.total(), 0);
    }

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
