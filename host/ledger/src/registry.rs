//! The books of the whole process: every live ledger, every route, and how the ended requests ended.

use crate::kind::Balance;
use crate::ledger::{LiveLedgers, Owner};
use crate::outcome::Outcome;
use crate::request_counts::{RequestCount, RequestCounts};
use crate::route::{Route, Routes};
use crate::usage_counts::UsageCounts;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The accounts of one host. After its last request has ended, no request holds anything.
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

/// Is told of each request that ends, for figures that cannot be had by looking now and then.
pub trait Observer: Any + std::fmt::Debug + Send + Sync {
    /// Called at the end of a request with its duration and the most bytes that it held.
    fn on_request_end(&self, outcome: Outcome, duration: Duration, peak_bytes: usize);
}

/// What all ledgers hold at one moment.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// What requests hold that have not ended.
    pub requests: Balance,
    /// What connections hold.
    pub connections: Balance,
    /// What is still held for requests and connections that have ended.
    pub leaked: Balance,
    /// Requests that have not ended.
    pub live_requests: usize,
    /// Connections that are open.
    pub live_connections: usize,
    /// By route: what its ended requests still hold, and what its live ones hold.
    pub by_route: Vec<RouteSnapshot>,
}

/// What the requests of one route hold.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RouteSnapshot {
    /// The route's pattern.
    pub route: Arc<Route>,
    /// Requests that have ended and still hold something.
    pub leaked_requests: usize,
    /// What they hold.
    pub leaked: Balance,
    /// Requests that have not ended.
    pub live_requests: usize,
    /// What they hold.
    pub live: Balance,
    /// Age of the oldest of them.
    pub oldest: Duration,
}

/// One live request, for a list of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LiveRequest {
    /// Its number, counted from the process's start.
    pub id: u64,
    /// Its method.
    pub method: http::Method,
    /// Its route's pattern.
    pub route: Arc<Route>,
    /// Time since its head was complete.
    pub age: Duration,
    /// What it holds.
    pub balance: Balance,
    /// The most that it held.
    pub peak_bytes: usize,
    /// Whether it has ended and yet holds something.
    pub has_ended: bool,
}

impl Snapshot {
    /// What all ledgers hold together.
    #[must_use]
    pub fn total(&self) -> Balance {
        let mut total = self.requests;
        total.add(&self.connections);
        total.add(&self.leaked);
        total
    }
}

impl LedgerRegistry {
    /// The host's ledgers: each new one is opened among them.
    #[must_use]
    pub fn live_ledgers(&self) -> &Arc<LiveLedgers> {
        &self.ledgers
    }

    /// Counts of what requests use now.
    #[must_use]
    pub fn in_use(&self) -> &UsageCounts {
        self.ledgers.in_use()
    }

    /// Waits until no request holds anything.
    pub async fn idle(&self) {
        self.in_use().idle().await;
    }

    /// Number of ended requests with that outcome.
    #[must_use]
    pub fn ended_requests(&self, outcome: Outcome) -> u64 {
        self.request_counts.of(outcome)
    }

    /// Number of ended requests by outcome, method and status class, with those of zero.
    pub fn request_counts(&self) -> impl Iterator<Item = RequestCount> + '_ {
        self.request_counts.all()
    }

    /// Bytes of response bodies that were handed to connections, for requests that have ended.
    #[must_use]
    pub fn response_body_bytes(&self) -> u64 {
        self.response_body_bytes.load(Ordering::Relaxed)
    }

    /// Number of requests that were answered from the response cache, without an instance.
    #[must_use]
    pub fn response_cache_hits(&self) -> u64 {
        self.response_cache_hits.load(Ordering::Relaxed)
    }

    pub(crate) fn count_response_cache_hit(&self) {
        self.response_cache_hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds up what all live ledgers hold.
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

    /// Requests that hold something now, oldest first, at most so many.
    #[must_use]
    pub fn live_requests(&self, most: usize) -> Vec<LiveRequest> {
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
            .take(most)
            .collect()
    }

    /// Every route that was asked for so far, up to a number of them.
    #[must_use]
    pub fn routes(&self) -> Vec<Arc<Route>> {
        self.routes.all()
    }

    /// The route of a path.
    #[must_use]
    pub fn route(&self, path: &str) -> Arc<Route> {
        self.routes.of(path)
    }

    /// Counts a request that ended.
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
        let observers = self.observers.read();
        for observer in &*observers.unwrap_or_else(PoisonError::into_inner) {
            observer.on_request_end(outcome, duration, peak_bytes);
        }
    }

    /// Tells an observer of that type of each request that ends from now on: the same one however often it is asked for.
    pub fn observe_once<O: Observer + Default>(&self) -> Arc<O> {
        let observers = self.observers.write();
        let mut observers = observers.unwrap_or_else(PoisonError::into_inner);
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
