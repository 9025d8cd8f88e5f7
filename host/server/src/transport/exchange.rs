//! A request on a connection: what the service asks of the connection, for HTTP/1.1 and for HTTP/2.

use crate::client_limits::{InFlight, TooManyRequests};
use crate::http1::framing::Framing;
use crate::http1::head::{self, HeadError};
use crate::http2::stream::Stream;
use crate::transport::connection::Connection;
use crate::transport::send_window::SMALLEST;
use crate::transport::sendfile::{LENT_PIECE_BYTES, Lent};
use crate::transport::timeouts::ResponseGuard;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use millpond::downstream::{BeginResponse, Downstream, Rejection};
use millpond::ledger::{LedgerHandle, Route};
use millpond::store::FileRange;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl BeginResponse for Connection {
    fn begin_response(
        self: Arc<Self>,
        route: &Arc<Route>,
        ledger: &LedgerHandle,
    ) -> Box<dyn Downstream> {
        Box::new(Http1Response::begin(self, route, ledger))
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

/// A response on a connection of HTTP/1.1, from the request's head to the last byte.
#[derive(Debug)]
pub(crate) struct Http1Response {
    framing: Framing,
    is_encrypted: bool,
    in_flight: Option<InFlight>,
    _answering: ResponseGuard,
    connection: Arc<Connection>,
}

impl Http1Response {
    /// Begins a response to a request of that route. The kernel's part is on that ledger until the response ends.
    pub(crate) fn begin(
        connection: Arc<Connection>,
        route: &Arc<Route>,
        ledger: &LedgerHandle,
    ) -> Self {
        let framing = connection.begin(ledger);
        let left_bytes = connection.left_bytes();
        connection.tracker().begin_request(route);
        Http1Response {
            framing,
            is_encrypted: connection.is_encrypted(),
            in_flight: None,
            _answering: ResponseGuard::begin(connection.clock(), left_bytes),
            connection,
        }
    }
}

impl Downstream for Http1Response {
    fn admit(&mut self, head: &Parts) -> Result<(), Rejection> {
        head::check(head, self.framing)?;
        self.in_flight = self.connection.admit(&head.headers)?;
        Ok(())
    }

    fn is_last(&self) -> bool {
        self.framing != Framing::NoBody
    }

    fn client(&self, headers: &HeaderMap) -> IpAddr {
        self.connection.client(headers)
    }

    fn rate_limit(&self) -> Option<NonZeroU32> {
        self.connection.clients().pace()
    }

    fn chunk_bytes(&self) -> usize {
        self.connection.window().piece_bytes
    }

    /// TLS reads the bytes first, and a page that the file has no more would end the process there. A reader that may be
    /// slow is given what fits its window: the kernel would fill a packet first.
    fn sendfile_bytes(&self) -> Option<usize> {
        let may_be_sent = !self.is_encrypted && self.connection.window() != SMALLEST;
        may_be_sent.then_some(LENT_PIECE_BYTES)
    }

    fn sendfile(&self, range: FileRange) -> Bytes {
        let (lent, stand_in) = Lent::new(range);
        self.connection.set_lent(Some(lent));
        stand_in
    }

    fn end_sendfile(&self) {
        self.connection.set_lent(None);
    }

    fn has_shrunk_file(&self) -> bool {
        self.connection.has_shrunk_file.load(Ordering::Relaxed)
    }
}

impl Drop for Http1Response {
    fn drop(&mut self) {
        self.connection.end();
    }
}

/// A response on a stream of HTTP/2. Its frames say where a request ends, whatever its fields say, and read its bytes.
#[derive(Debug)]
struct Http2Response {
    in_flight: Option<InFlight>,
    stream: Arc<Stream>,
}

impl Downstream for Http2Response {
    fn admit(&mut self, head: &Parts) -> Result<(), Rejection> {
        head::check(head, Framing::NoBody)?;
        self.in_flight = self.stream.connection.admit(&head.headers)?;
        Ok(())
    }

    fn is_last(&self) -> bool {
        false
    }

    fn client(&self, headers: &HeaderMap) -> IpAddr {
        self.stream.connection.client(headers)
    }

    fn rate_limit(&self) -> Option<NonZeroU32> {
        self.stream.connection.clients().pace()
    }

    fn chunk_bytes(&self) -> usize {
        self.stream.window().piece_bytes
    }
}

impl From<HeadError> for Rejection {
    fn from(unfit: HeadError) -> Self {
        let (status, message) = unfit.status();
        Rejection {
            status,
            message,
            reason: unfit.to_string(),
            retry_after_seconds: None,
            closes: true,
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
            closes: false,
        }
    }
}
