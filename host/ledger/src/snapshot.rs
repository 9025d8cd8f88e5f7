//! Snapshots of the ledgers: their sums, and the requests that hold memory.

use crate::kind::Balance;
use crate::registry::{Entries, LedgerRegistry, Owner};
use crate::route::Route;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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
    /// Leaked memory of the requests, by the pattern of their route.
    pub(crate) leaks: BTreeMap<Arc<str>, RouteLeak>,
}

/// Leaked memory of one route's requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct RouteLeak {
    /// Number of ended requests that still have charges.
    pub(crate) requests: usize,
    /// Memory that they hold.
    pub(crate) held: Balance,
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
    /// Returns the sums of all live ledgers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for entries in self.live() {
            let balance = entries.balance();
            if entries.has_ended() {
                snapshot.leaked.add(&balance);
                if let Some((_, route)) = entries.request() {
                    let leak = snapshot.leaks.entry(Arc::clone(&route.pattern));
                    let leak = leak.or_default();
                    leak.requests += 1;
                    leak.held.add(&balance);
                }
                continue;
            }
            match entries.owner {
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
        }
        snapshot
    }

    /// Returns the requests that hold memory, oldest first, `max_count` at most.
    #[must_use]
    pub fn live_requests(&self, max_count: usize) -> Vec<LiveRequest> {
        let mut live = self.live();
        live.sort_unstable_by_key(|entries| entries.id);
        let requests = live.iter().filter_map(|entries| LiveRequest::of(entries));
        requests.take(max_count).collect()
    }

    /// Returns the requests that hold most memory, in descending order, `max_count` at most.
    #[must_use]
    pub fn largest_requests(&self, max_count: usize) -> Vec<LiveRequest> {
        let live = self.live();
        // The totals change meanwhile, so each is read once.
        let mut by_bytes: Vec<(Reverse<usize>, u64, &Arc<Entries>)> = live
            .iter()
            .filter(|entries| entries.request().is_some())
            .map(|entries| (Reverse(entries.total_bytes()), entries.id, entries))
            .collect();
        by_bytes.sort_unstable_by_key(|(bytes, id, _)| (*bytes, *id));
        let largest = by_bytes.iter().take(max_count);
        largest
            .filter_map(|(_, _, entries)| LiveRequest::of(entries))
            .collect()
    }
}

impl LiveRequest {
    /// Returns `None` if the owner is no request.
    fn of(entries: &Entries) -> Option<Self> {
        let (method, route) = entries.request()?;
        Some(LiveRequest {
            id: entries.id,
            method: method.clone(),
            route: Arc::clone(route),
            age: entries.since.elapsed(),
            balance: entries.balance(),
            peak_bytes: entries.peak_bytes(),
            has_ended: entries.has_ended(),
        })
    }
}

impl Serialize for LiveRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let age_ms = u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX);
        let kinds = self.balance.iter();
        let by_kind: BTreeMap<_, _> = kinds.map(|(kind, bytes)| (kind.name(), bytes)).collect();
        let mut request = serializer.serialize_struct("LiveRequest", 8)?;
        request.serialize_field("id", &self.id)?;
        request.serialize_field("method", self.method.as_str())?;
        request.serialize_field("route", &*self.route.pattern)?;
        request.serialize_field("age_ms", &age_ms)?;
        request.serialize_field("total_bytes", &self.balance.total())?;
        request.serialize_field("peak_bytes", &self.peak_bytes)?;
        request.serialize_field("by_kind", &by_kind)?;
        request.serialize_field("has_ended", &self.has_ended)?;
        request.end()
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
        let registry = Arc::new(LedgerRegistry::default());
        let ledger = Ledger::new(&registry, Owner::Connection, 100);
        let charge = ledger.handle().charge(Kind::Buffers, 7).unwrap();
        assert_eq!(registry.snapshot().leaked.total(), 0);
        drop(ledger);
        assert_eq!(registry.snapshot().leaked.of(Kind::Buffers), 7);
        drop(charge);
        assert_eq!(registry.snapshot().leaked.total(), 0);
    }

    #[test]
    fn the_largest_requests_come_first_and_connections_are_none() {
        let registry = Arc::new(LedgerRegistry::default());
        let owner = || Owner::Request {
            method: http::Method::GET,
            route: registry.route("/a.gif"),
        };
        let owners = [owner(), Owner::Connection, owner(), owner()];
        let ledgers = owners.map(|owner| Ledger::new(&registry, owner, 100));
        let held: Vec<_> = ledgers
            .iter()
            .zip([3, 50, 7, 5])
            .map(|(ledger, bytes)| ledger.charge(Kind::Buffers, bytes).unwrap())
            .collect();
        let largest = registry.largest_requests(2);
        let totals: Vec<_> = largest
            .iter()
            .map(|request| request.balance.total())
            .collect();
        assert_eq!(totals, [7, 5]);
        drop(held);
    }
}
