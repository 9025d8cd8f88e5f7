//! Limits per client: concurrent requests, request rate, and rate of a response.
//!
//! All limits are off by default. The state is bounded. Requests in flight are counted for at most as many clients as
//! there are connections. Request rates are kept for at most [`CLIENTS`] clients, and stale ones are dropped.

use crate::forwarded::{self, ClientAddress};
use governor::clock::{Clock, MonotonicClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use http::HeaderMap;
pub use ipnet::IpNet;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Maximum clients whose request rate is measured. They fill a hash table of half a megabyte, and exceed the concurrent
/// clients of one process. Further clients share one bucket.
pub(crate) const CLIENTS: usize = 14 * 1024;

/// Limits per client. A client is an IPv4 address or an IPv6 network of 64 bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientLimits {
    /// Maximum number of requests in flight, from the head to the end of the response. Further requests get 429.
    pub concurrency: Option<NonZeroU32>,
    /// Maximum request rate. Requests beyond it get 429.
    pub rate: Option<Rate>,
    /// Maximum bytes per second of each response, in the part of it that is media.
    pub limit_rate_bytes_per_second: Option<NonZeroU32>,
    /// Trusted proxies: their `Forwarded` (RFC 7239) or `X-Forwarded-For` identifies the client.
    pub trusted_proxies: Vec<IpNet>,
}

/// A request rate with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second.
    pub per_second: NonZeroU32,
    /// Requests that may come at once after a pause.
    pub burst: NonZeroU32,
}

/// A client asks for more than it may (RFC 6585 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooManyRequests {
    #[error("the client has {0} requests in flight, its maximum")]
    InFlight(NonZeroU32),
    #[error("the client is above its request rate")]
    Rate {
        /// The time until the next request is allowed.
        wait: Duration,
    },
}

impl TooManyRequests {
    /// The value of `Retry-After`, in seconds (RFC 9110 section 10.2.3).
    pub(crate) fn retry_after_seconds(self) -> u64 {
        match self {
            TooManyRequests::InFlight(_) => 1,
            TooManyRequests::Rate { wait } => wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
        }
        .max(1)
    }
}

/// The clients of one listener, or of several that share their limits.
#[derive(Debug)]
pub(crate) struct Clients {
    limits: ClientLimits,
    in_flight: Arc<InFlightCounts>,
    rate: Option<Arc<ClientRateLimiter<MonotonicClock>>>,
}

/// Requests in flight, by client. They outlive a change of the limits.
type InFlightCounts = Mutex<HashMap<ClientAddress, u32>>;

impl Clients {
    pub(crate) fn new(limits: &ClientLimits) -> Arc<Self> {
        Arc::new(Clients {
            limits: limits.clone(),
            in_flight: Arc::default(),
            rate: rate_limiter(limits),
        })
    }

    /// Returns the same clients under other limits. Requests in flight count on, and a rate that has not changed keeps
    /// its state.
    pub(crate) fn succeeded_by(&self, limits: &ClientLimits) -> Arc<Self> {
        let is_same_rate = limits.rate == self.limits.rate;
        Arc::new(Clients {
            limits: limits.clone(),
            in_flight: Arc::clone(&self.in_flight),
            rate: if is_same_rate {
                self.rate.clone()
            } else {
                rate_limiter(limits)
            },
        })
    }

    /// Whether a limit of concurrency or rate is set.
    pub(crate) fn are_counted(&self) -> bool {
        self.limits.concurrency.is_some() || self.rate.is_some()
    }

    /// The rate limit of each response, in bytes per second.
    pub(crate) fn limit_rate(&self) -> Option<NonZeroU32> {
        self.limits.limit_rate_bytes_per_second
    }

    /// Admits a request. It is in flight until the guard is dropped.
    ///
    /// # Errors
    /// [`TooManyRequests`].
    pub(crate) fn admit(
        &self,
        peer: IpAddr,
        fields: &HeaderMap,
    ) -> Result<Option<InFlight>, TooManyRequests> {
        if !self.are_counted() {
            return Ok(None);
        }
        let client = ClientAddress::from(self.client(peer, fields));
        let most = self.limits.concurrency;
        let in_flight = most.map(|most| self.enter(client, most)).transpose()?;
        if let Some(rate) = &self.rate {
            rate.check(client)?;
        }
        Ok(in_flight)
    }

    /// Whether a peer is a trusted proxy.
    pub(crate) fn is_trusted(&self, peer: IpAddr) -> bool {
        forwarded::is_trusted(peer.to_canonical(), &self.limits.trusted_proxies)
    }

    /// Returns the address of the client behind a peer, as reported by trusted proxies.
    pub(crate) fn client(&self, peer: IpAddr, fields: &HeaderMap) -> IpAddr {
        forwarded::client(peer, fields, &self.limits.trusted_proxies)
    }

    fn enter(&self, client: ClientAddress, most: NonZeroU32) -> Result<InFlight, TooManyRequests> {
        let mut in_flight = self.in_flight.lock();
        let count = in_flight.entry(client).or_default();
        if *count >= most.get() {
            return Err(TooManyRequests::InFlight(most));
        }
        *count += 1;
        drop(in_flight);
        Ok(InFlight {
            counts: Arc::clone(&self.in_flight),
            client,
        })
    }
}

fn rate_limiter(limits: &ClientLimits) -> Option<Arc<ClientRateLimiter<MonotonicClock>>> {
    let limiter = |rate| Arc::new(ClientRateLimiter::new(rate, MonotonicClock));
    limits.rate.map(limiter)
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    counts: Arc<InFlightCounts>,
    client: ClientAddress,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut in_flight = self.counts.lock();
        if let Some(count) = in_flight.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                in_flight.remove(&self.client);
            }
        }
    }
}

/// The request rates of all clients, as token buckets.
#[derive(Debug)]
struct ClientRateLimiter<C: Clock> {
    limiter: RateLimiter<ClientAddress, Table, C, NoOpMiddleware<C::Instant>>,
    swept: Mutex<C::Instant>,
}

/// Minimum interval between sweeps of a full table for stale clients.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

impl<C: Clock> ClientRateLimiter<C> {
    fn new(rate: Rate, clock: C) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        ClientRateLimiter {
            swept: Mutex::new(clock.now()),
            limiter: RateLimiter::new(quota, Table::new(), clock),
        }
    }

    fn check(&self, client: ClientAddress) -> Result<(), TooManyRequests> {
        if self.limiter.len() >= CLIENTS {
            self.sweep();
        }
        self.limiter
            .check_key(&client)
            .map_err(|not_until| TooManyRequests::Rate {
                wait: not_until.wait_time_from(self.limiter.clock().now()),
            })
    }

    fn sweep(&self) {
        let now = self.limiter.clock().now();
        let mut swept = self.swept.lock();
        if Duration::from(now.duration_since(*swept)) >= SWEEP_PAUSE {
            *swept = now;
            self.limiter.retain_recent();
        }
    }
}

/// The bucket of each client, stored as the time at which it is full again. Clients that find the table full share one
/// bucket. So neither the memory nor the rate of unknown clients is unbounded.
#[derive(Debug)]
struct Table {
    state: Mutex<TableState>,
}

#[derive(Debug)]
struct TableState {
    known: HashMap<ClientAddress, Nanos>,
    others: Option<Nanos>,
}

impl Table {
    /// Creates an empty table at its full capacity.
    fn new() -> Self {
        Table {
            state: Mutex::new(TableState {
                known: HashMap::with_capacity(CLIENTS),
                others: None,
            }),
        }
    }
}

impl StateStore for Table {
    type Key = ClientAddress;

    fn measure_and_replace<T, F, E>(&self, client: &ClientAddress, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut state = self.state.lock();
        let known = state.known.get(client).copied();
        if known.is_none() && state.known.len() >= CLIENTS {
            let (outcome, next) = measure(state.others)?;
            state.others = Some(next);
            return Ok(outcome);
        }
        let (outcome, next) = measure(known)?;
        state.known.insert(*client, next);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<ClientAddress> for Table {
    fn retain_recent(&self, drop_below: Nanos) {
        self.state.lock().known.retain(|_, full| *full > drop_below);
    }

    fn len(&self) -> usize {
        self.state.lock().known.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use governor::clock::FakeRelativeClock;
    use millpond::memory_plan::{CLIENT_TABLES_BYTES, CONNECTIONS};
    use std::net::Ipv4Addr;

    fn client(number: u32) -> ClientAddress {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    fn rates(
        per_second: u32,
        burst: u32,
    ) -> (ClientRateLimiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let rate = Rate {
            per_second: NonZeroU32::new(per_second).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        };
        (ClientRateLimiter::new(rate, clock.clone()), clock)
    }

    #[test]
    fn a_bucket_is_emptied_at_once_and_filled_in_time() {
        let (rates, clock) = rates(2, 3);
        let asks = |count: usize| {
            (0..count)
                .filter(|_| rates.check(client(1)).is_ok())
                .count()
        };
        assert_eq!(asks(10), 3);
        assert_eq!(rates.check(client(2)), Ok(()), "another client has its own");
        let wait = Duration::from_millis(500);
        assert_eq!(rates.check(client(1)), Err(TooManyRequests::Rate { wait }));
        assert_eq!(TooManyRequests::Rate { wait }.retry_after_seconds(), 1);
        clock.advance(wait);
        assert_eq!(asks(10), 1);
        clock.advance(Duration::from_secs(60));
        assert_eq!(asks(10), 3);
    }

    #[test]
    fn a_full_table_grows_no_further_and_is_swept() {
        let (rates, clock) = rates(1, 2);
        let clients = u32::try_from(CLIENTS).unwrap();
        for number in 0..clients {
            assert_eq!(rates.check(client(number)), Ok(()));
        }
        // Clients beyond the table share one bucket.
        let strangers =
            (clients..clients + 100).filter(|number| rates.check(client(*number)).is_ok());
        assert_eq!(strangers.count(), 2);
        assert_eq!(rates.limiter.len(), CLIENTS);
        assert_eq!(rates.check(client(7)), Ok(()), "who is known is known");
        clock.advance(Duration::from_secs(60));
        assert_eq!(rates.check(client(clients)), Ok(()));
        assert_eq!(rates.limiter.len(), 1);
    }

    #[test]
    fn full_tables_take_what_their_cap_says() {
        let (rates, _clock) = rates(1, 1);
        let room = |table: &Table| table.state.lock().known.capacity();
        let before = room(&Table::new());
        for number in 0..u32::try_from(CLIENTS).unwrap() {
            let _ = rates.check(client(number));
        }
        assert_eq!(room(&rates.limiter.into_state_store()), before);
        // An eighth of a table's slots stays free, and each slot takes a byte more. The other table grows, and briefly
        // exists beside its smaller copy.
        let places = |capacity: usize| (capacity * 8).div_ceil(7);
        let of_late = places(before) * (size_of::<(ClientAddress, Nanos)>() + 1);
        let in_flight = HashMap::<ClientAddress, u32>::with_capacity(CONNECTIONS);
        let in_flight = places(in_flight.capacity()) * (size_of::<(ClientAddress, u32)>() + 1);
        let bytes = of_late + in_flight + in_flight / 2;
        assert!(bytes <= CLIENT_TABLES_BYTES, "{bytes}");
    }

    #[test]
    fn requests_in_flight_are_counted_until_they_end() {
        let limits = ClientLimits {
            concurrency: NonZeroU32::new(2),
            ..ClientLimits::default()
        };
        let clients = Clients::new(&limits);
        let admit = |peer: &str| clients.admit(peer.parse().unwrap(), &HeaderMap::new());
        let first = admit("2001:db8::1").unwrap();
        let second = admit("2001:db8::2").unwrap();
        let third = admit("2001:db8::3").unwrap_err();
        assert_eq!(
            third,
            TooManyRequests::InFlight(NonZeroU32::new(2).unwrap())
        );
        assert!(admit("2001:db8:0:1::1").is_ok());
        drop(second);
        assert!(admit("2001:db8::3").is_ok());
        drop(first);
        assert!(clients.in_flight.lock().is_empty());
    }
}
