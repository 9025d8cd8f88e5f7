//! Timeouts and rates of a connection, and limits per client.

use crate::client_limits::{ClientLimits, Clients};
use arc_swap::{ArcSwap, Guard};
use millpond::rate_limit::RATE_LIMIT_INTERVAL;
use std::sync::Arc;
use std::time::Duration;

/// Timeouts and rates of a connection, and limits per client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Maximum time from the first byte of a request's head to its last.
    pub header_timeout: Duration,
    /// Maximum time between the end of a response and the first byte of the next request.
    pub keepalive_timeout: Duration,
    /// Interval over which [`ConnectionLimits::min_send_bytes_per_second`] is measured while a response is being sent.
    /// Players fetch a minute of media at a time and then pause, so two minutes is the shortest useful interval.
    pub send_timeout: Duration,
    /// Minimum rate at which a client has to take a response, in bytes per second. A slower client is disconnected. On
    /// Linux, bytes in this system's own buffers do not count as taken. The minimum of a stream of HTTP/2 is a fraction
    /// of it, since all streams share one client.
    pub min_send_bytes_per_second: u32,
    /// Maximum time from the end of a request's head to the end of its response. `None` sets no maximum.
    pub response_timeout: Option<Duration>,
    /// Time that in-flight responses get to finish at a shutdown. Connections that are still busy are then closed.
    pub shutdown_grace: Duration,
    /// Limits per client, over all its connections.
    pub clients: ClientLimits,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            header_timeout: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(120),
            min_send_bytes_per_second: 1024,
            response_timeout: None,
            shutdown_grace: Duration::from_secs(10),
            clients: ClientLimits::default(),
        }
    }
}

impl ConnectionLimits {
    /// Checks that no client is disconnected for being slow while the rate limit holds it back.
    ///
    /// # Errors
    /// [`LimitRateTooLow`].
    pub fn check(&self) -> Result<(), LimitRateTooLow> {
        /// Margin for chunks that cross the end of an interval, and for inexact timers.
        const MARGIN: u32 = 2;
        /// Minimum rate at which each chunk has a byte.
        const LEAST_RATE: u32 = 10;
        let minimum = self.min_send_bytes_per_second.saturating_mul(MARGIN);
        let minimum = minimum.max(LEAST_RATE);
        match self.clients.limit_rate_bytes_per_second {
            Some(rate) if rate.get() < minimum => Err(LimitRateTooLow::Rate {
                limit_rate: rate.get(),
                minimum,
            }),
            Some(_) if self.send_timeout < LEAST_SEND_TIMEOUT => {
                Err(LimitRateTooLow::SendTimeout {
                    send_timeout: self.send_timeout,
                    minimum: LEAST_SEND_TIMEOUT,
                })
            }
            _ => Ok(()),
        }
    }
}

/// The limits of the connections of one or more listeners, which a program may replace while they serve.
///
/// A new limit applies to the next request of each connection. A response in progress keeps the limits that it began
/// with. Clones share the limits.
#[derive(Debug, Clone)]
pub struct LiveLimits(Arc<CurrentLimits>);

#[derive(Debug)]
struct CurrentLimits {
    limits: ArcSwap<ConnectionLimits>,
    clients: ArcSwap<Clients>,
}

impl LiveLimits {
    /// Returns the limits in use.
    #[must_use]
    pub fn load(&self) -> Arc<ConnectionLimits> {
        self.0.limits.load_full()
    }

    /// Replaces the limits. Requests in flight still count against [`ClientLimits::concurrency`], and an unchanged
    /// request rate keeps its state.
    ///
    /// # Errors
    /// As [`ConnectionLimits::check`]. The limits then stay as they are.
    pub fn replace(&self, limits: ConnectionLimits) -> Result<(), LimitRateTooLow> {
        limits.check()?;
        let clients = self.0.clients.load().succeeded_by(&limits.clients);
        self.0.clients.store(clients);
        self.0.limits.store(Arc::new(limits));
        Ok(())
    }

    /// The limits in use, for a short look.
    pub(crate) fn peek(&self) -> Guard<Arc<ConnectionLimits>> {
        self.0.limits.load()
    }

    /// The clients, under the limits in use.
    pub(crate) fn clients(&self) -> Guard<Arc<Clients>> {
        self.0.clients.load()
    }
}

impl From<ConnectionLimits> for LiveLimits {
    fn from(limits: ConnectionLimits) -> Self {
        LiveLimits(Arc::new(CurrentLimits {
            clients: ArcSwap::new(Clients::new(&limits.clients)),
            limits: ArcSwap::from_pointee(limits),
        }))
    }
}

impl Default for LiveLimits {
    fn default() -> Self {
        ConnectionLimits::default().into()
    }
}

/// Minimum send timeout with a rate limit: ten intervals of the limiter.
const LEAST_SEND_TIMEOUT: Duration = RATE_LIMIT_INTERVAL.saturating_mul(10);

/// A rate limit at which clients would be disconnected for being slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitRateTooLow {
    /// The rate is too near to the minimum send rate.
    #[error(
        "limit_rate_bytes_per_second is {limit_rate} and has to be {minimum} at least: \
         a client that takes less than min_send_bytes_per_second is disconnected"
    )]
    Rate {
        /// The limit rate, in bytes per second.
        limit_rate: u32,
        /// The lowest rate that is accepted.
        minimum: u32,
    },
    /// The send timeout is too short to measure a limited rate.
    #[error(
        "send_timeout is {send_timeout:?} and has to be {minimum:?} at least with a limit rate"
    )]
    SendTimeout {
        /// The send timeout.
        send_timeout: Duration,
        /// The shortest timeout that is accepted.
        minimum: Duration,
    },
}
