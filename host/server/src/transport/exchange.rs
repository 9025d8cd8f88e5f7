//! The connection's part in a request and its response, for HTTP/1.1 and HTTP/2.

use crate::client_limits::{InFlight, TooManyRequests};
use crate::http1::head::{self, HeadError};
use crate::http2::stream::Stream;
use crate::transport::connection::Connection;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use millpond::downstream::{BeginResponse, Downstream, Rejection};
use millpond::ledger::{LedgerHandle, Route};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A request of HTTP/1.1, after its head is parsed and its client admitted or rejected.
pub(crate) struct Http1Request {
    connection: Arc<Connection>,
    /// The client's admission, which the response takes over, or the rejection.
    admission: Mutex<Result<Option<InFlight>, Rejection>>,
    /// The ledger that the service has opened for the request.
    ledger: OnceLock<LedgerHandle>,
}

impl Http1Request {
    /// Creates a request with the admission of its client, or the rejection.
    pub(crate) fn new(
        connection: &Arc<Connection>,
        admission: Result<Option<InFlight>, Rejection>,
    ) -> Arc<Self> {
        Arc::new(Http1Request {
            connection: Arc::clone(connection),
            admission: Mutex::new(admission),
            ledger: OnceLock::new(),
        })
    }

    /// The ledger of the request, once the service has started the response.
    pub(crate) fn ledger(&self) -> Option<LedgerHandle> {
        self.ledger.get().cloned()
    }
}

impl BeginResponse for Http1Request {
    fn begin_response(
        self: Arc<Self>,
        route: &Arc<Route>,
        ledger: &LedgerHandle,
    ) -> Box<dyn Downstream> {
        self.connection.tracker().begin_request(route);
        // A request has one response, so the cell is empty.
        let _ = self.ledger.set(ledger.clone());
        let mut admission = self
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Box::new(Http1Response {
            admission: std::mem::replace(&mut admission, Ok(None)),
            connection: Arc::clone(&self.connection),
        })
    }
}

impl BeginResponse for Stream {
    fn begin_response(
        self: Arc<Self>,
        route: &Arc<Route>,
        _ledger: &LedgerHandle,
    ) -> Box<dyn Downstream> {
        self.connection.tracker().begin_request(route);
        Box::new(Http2Response {
            in_flight: None,
            stream: self,
        })
    }
}

/// A response on a connection of HTTP/1.1.
#[derive(Debug)]
struct Http1Response {
    admission: Result<Option<InFlight>, Rejection>,
    connection: Arc<Connection>,
}

impl Downstream for Http1Response {
    fn admit(&mut self, _head: &Parts) -> Result<(), Rejection> {
        match &self.admission {
            Ok(_) => Ok(()),
            Err(rejection) => Err(rejection.clone()),
        }
    }

    fn client(&self, headers: &HeaderMap) -> IpAddr {
        self.connection.client(headers)
    }

    fn rate_limit(&self) -> Option<NonZeroU32> {
        self.connection.clients().limit_rate()
    }

    fn chunk_bytes(&self) -> usize {
        self.connection.window().chunk_bytes
    }
}

/// A response on a stream of HTTP/2. Frames delimit requests, whatever the fields say.
#[derive(Debug)]
struct Http2Response {
    in_flight: Option<InFlight>,
    stream: Arc<Stream>,
}

impl Downstream for Http2Response {
    fn admit(&mut self, head: &Parts) -> Result<(), Rejection> {
        head::check_parts(head)?;
        self.in_flight = self.stream.connection.admit(&head.headers)?;
        Ok(())
    }

    fn client(&self, headers: &HeaderMap) -> IpAddr {
        self.stream.connection.client(headers)
    }

    fn rate_limit(&self) -> Option<NonZeroU32> {
        self.stream.connection.clients().limit_rate()
    }

    fn chunk_bytes(&self) -> usize {
        self.stream.window().chunk_bytes
    }
}

impl From<HeadError> for Rejection {
    fn from(error: HeadError) -> Self {
        let (status, message) = error.status();
        Rejection {
            status,
            message,
            reason: error.to_string(),
            retry_after_seconds: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }
}

impl From<TooManyRequests> for Rejection {
    fn from(too_many: TooManyRequests) -> Self {
        Rejection {
            status: StatusCode::TOO_MANY_REQUESTS,
            message: "Too many requests",
            reason: too_many.to_string(),
            retry_after_seconds: Some(too_many.retry_after_seconds()),
        }
    }
}
