//! The books of the whole process: every live ledger, every route, and how the ended requests ended.

use crate::ledger::counts::{Counts, RequestCount};
use crate::ledger::record::Outcome;
use crate::ledger::route::{Route, Routes};
use crate::ledger::{Balance, Entries, Kind, Owner};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// The accounts of one host. After its last request has ended, no request holds anything.
#[derive(Debug, Default)]
pub struct Accounts {
    next_id: AtomicU64,
    /// Live ledgers by their number, so oldest first, in several maps so that cores seldom wait for each other.
    live: [Mutex<BTreeMap<u64, Weak<Entries>>>; SHARDS],
    requests: AtomicUsize,
    stores: AtomicUsize,
    bodies: AtomicUsize,
    files: AtomicUsize,
    ended: Counts,
    response_body_bytes: AtomicU64,
    response_cache_hits: AtomicU64,
    observers: RwLock<Vec<Box<dyn Observer>>>,
    routes: Routes,
    given_back: Notify,
}

const SHARDS: usize = 16;

/// Figures of one request at its end.
#[derive(Debug)]
pub(crate) struct EndedRequest<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) method: &'a http::Method,
    pub(crate) status: Option<http::StatusCode>,
    pub(crate) body_bytes: u64,
    pub(crate) duration: Duration,
    pub(crate) peak_bytes: usize,
}

/// Is told of each request that ends, for figures that cannot be had by looking now and then.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// Called at the end of a request with its duration and the most bytes that it held.
    fn ended(&self, outcome: Outcome, duration: Duration, peak_bytes: usize);
}

/// What all ledgers hold at one moment.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Survey {
    /// What requests hold that have not ended.
    pub requests: Balance,
    /// What connections hold.
    pub connections: Balance,
    /// What is still held for requests and connections that have ended.
    pub unreturned: Balance,
    /// Requests that have not ended.
    pub live_requests: usize,
    /// Connections that are open.
    pub live_connections: usize,
    /// By route: what its ended requests still hold, and what its live ones hold.
    pub by_route: Vec<RouteSurvey>,
}

/// What the requests of one route hold.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RouteSurvey {
    /// The route's pattern.
    pub route: Arc<Route>,
    /// Requests that have ended and still hold something.
    pub unreturned_requests: usize,
    /// What they hold.
    pub unreturned: Balance,
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

impl Survey {
    /// What all ledgers hold together.
    #[must_use]
    pub fn total(&self) -> Balance {
        let mut total = self.requests;
        total.add(&self.connections);
        total.add(&self.unreturned);
        total
    }
}

impl Accounts {
    /// Requests that hold something, be it after their end.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    /// Stores alive now, each with the instance of one request.
    #[must_use]
    pub fn stores(&self) -> usize {
        self.stores.load(Ordering::Acquire)
    }

    /// Response bodies alive now.
    #[must_use]
    pub fn bodies(&self) -> usize {
        self.bodies.load(Ordering::Acquire)
    }

    /// Files open now for requests.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files.load(Ordering::Acquire)
    }

    /// Number of ended requests with that outcome.
    #[must_use]
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.ended.of(outcome)
    }

    /// Number of ended requests by outcome, method and status class, with those of zero.
    pub fn request_counts(&self) -> impl Iterator<Item = RequestCount> + '_ {
        self.ended.all()
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

    /// Waits until no request holds anything.
    pub async fn idle(&self) {
        loop {
            let given_back = self.given_back.notified();
            if self.requests() + self.stores() + self.bodies() + self.files() == 0 {
                return;
            }
            given_back.await;
        }
    }

    /// Adds up what all live ledgers hold.
    #[must_use]
    pub fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        let mut by_route: BTreeMap<Arc<str>, RouteSurvey> = BTreeMap::new();
        for entries in self.live() {
            let balance = entries.balance();
            let has_ended = entries.ended_ago().is_some();
            match entries.owner() {
                _ if has_ended => survey.unreturned.add(&balance),
                Owner::Host => {}
                Owner::Connection => {
                    survey.live_connections += 1;
                    survey.connections.add(&balance);
                }
                Owner::Request { .. } => {
                    survey.live_requests += 1;
                    survey.requests.add(&balance);
                }
            }
            let Owner::Request { route, .. } = entries.owner() else {
                continue;
            };
            let of_route = by_route
                .entry(Arc::clone(&route.pattern))
                .or_insert_with(|| RouteSurvey::new(route));
            if has_ended {
                of_route.unreturned_requests += 1;
                of_route.unreturned.add(&balance);
            } else {
                of_route.live_requests += 1;
                of_route.live.add(&balance);
                of_route.oldest = of_route.oldest.max(entries.age());
            }
        }
        survey.by_route = by_route.into_values().collect();
        survey
    }

    /// Requests that hold something now, oldest first, at most so many.
    #[must_use]
    pub fn live_requests(&self, most: usize) -> Vec<LiveRequest> {
        let mut live = self.live();
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

    pub(crate) fn route(&self, path: &str) -> Arc<Route> {
        self.routes.of(path)
    }

    /// The live ledgers. They are dropped outside the maps' locks, since the last handle takes itself out.
    fn live(&self) -> Vec<Arc<Entries>> {
        let mut live = Vec::new();
        for shard in &self.live {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            live.extend(shard.values().filter_map(Weak::upgrade));
        }
        live
    }

    pub(crate) fn next_ledger_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn enter(&self, entries: &Arc<Entries>) {
        if let Owner::Request { .. } = entries.owner() {
            self.requests.fetch_add(1, Ordering::AcqRel);
        }
        self.shard(entries.id())
            .insert(entries.id(), Arc::downgrade(entries));
    }

    pub(crate) fn leave(&self, id: u64, owner: &Owner) {
        self.shard(id).remove(&id);
        if let Owner::Request { .. } = owner {
            self.give_back(&self.requests);
        }
    }

    fn shard(&self, id: u64) -> std::sync::MutexGuard<'_, BTreeMap<u64, Weak<Entries>>> {
        let shard = &self.live[id as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count_charge(&self, kind: Kind) {
        if let Some(count) = self.count_of(kind) {
            count.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn uncount_charge(&self, kind: Kind) {
        if let Some(count) = self.count_of(kind) {
            self.give_back(count);
        }
    }

    /// Counts one less. Whoever waits for there to be none is told of the last.
    fn give_back(&self, count: &AtomicUsize) {
        if count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.given_back.notify_waiters();
        }
    }

    /// The kinds of charge of which there is one for each thing that is counted while it lives.
    fn count_of(&self, kind: Kind) -> Option<&AtomicUsize> {
        match kind {
            Kind::Instance => Some(&self.stores),
            Kind::Response => Some(&self.bodies),
            Kind::Files => Some(&self.files),
            _ => None,
        }
    }

    /// Counts a request that ended.
    pub(crate) fn count_end(&self, ended: &EndedRequest<'_>) {
        let EndedRequest {
            outcome,
            method,
            status,
            body_bytes,
            duration,
            peak_bytes,
        } = *ended;
        self.response_body_bytes
            .fetch_add(body_bytes, Ordering::Relaxed);
        self.ended.add(outcome, method, status);
        let observers = self.observers.read();
        for observer in &*observers.unwrap_or_else(PoisonError::into_inner) {
            observer.ended(outcome, duration, peak_bytes);
        }
    }

    /// Tells `observer` of each request that ends from now on, for as long as there are these accounts.
    pub fn observe(&self, observer: impl Observer + 'static) {
        let observers = self.observers.write();
        let mut observers = observers.unwrap_or_else(PoisonError::into_inner);
        observers.push(Box::new(observer));
    }
}

impl RouteSurvey {
    fn new(route: &Arc<Route>) -> Self {
        RouteSurvey {
            route: Arc::clone(route),
            unreturned_requests: 0,
            unreturned: Balance::default(),
            live_requests: 0,
            live: Balance::default(),
            oldest: Duration::ZERO,
        }
    }
}
