//! The connection's part in a request and its response, for HTTP/1.1 and HTTP/2.

use crate::client_limits::{InFlight, TooManyRequests};
use crate::http1::head::HeadError;
#[cfg(feature = "http2")]
use crate::http2::stream::Stream;
use crate::request_id::RequestId;
use crate::transport::connection::Connection;
use crate::transport::send_window::Window;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use millpond::downstream::{BeginResponse, Downstream, Rejection};
use millpond::ledger::{LedgerHandle, Route};
use parking_lot::Mutex;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

/// A request, after its head is parsed and its client admitted or rejected.
pub(crate) struct PendingRequest {
    connection: Arc<Connection>,
    /// The stream of the request, in HTTP/2.
    #[cfg(feature = "http2")]
    stream: Option<Arc<Stream>>,
    /// The client's admission, which the response takes over, or the rejection.
    admission: Mutex<Admission>,
    request_id: RequestId,
    /// The ledger that the service has opened for the request.
    ledger: OnceLock<LedgerHandle>,
}

/// The admission of a request's client, or the rejection of the request.
pub(crate) type Admission = Result<Option<InFlight>, Rejection>;

impl PendingRequest {
    /// Creates a request of HTTP/1.1.
    pub(crate) fn new(
        connection: &Arc<Connection>,
        admission: Admission,
        request_id: RequestId,
    ) -> Arc<Self> {
        Arc::new(PendingRequest {
            connection: Arc::clone(connection),
            #[cfg(feature = "http2")]
            stream: None,
            admission: Mutex::new(admission),
            request_id,
            ledger: OnceLock::new(),
        })
    }

    /// Creates a request on a stream of HTTP/2.
    #[cfg(feature = "http2")]
    pub(crate) fn on_stream(
        stream: &Arc<Stream>,
        admission: Admission,
        request_id: RequestId,
    ) -> Arc<Self> {
        Arc::new(PendingRequest {
            connection: Arc::clone(&stream.connection),
            stream: Some(Arc::clone(stream)),
            admission: Mutex::new(admission),
            request_id,
            ledger: OnceLock::new(),
        })
    }

    /// The ledger of the request, once the service has started the response.
    pub(crate) fn ledger(&self) -> Option<LedgerHandle> {
        self.ledger.get().cloned()
    }

    /// The id of the request.
    pub(crate) fn id(&self) -> &RequestId {
        &self.request_id
    }

    fn window(&self) -> Window {
        #[cfg(feature = "http2")]
        if let Some(stream) = &self.stream {
            return stream.window();
        }
        self.connection.window()
    }
}

impl BeginResponse for PendingRequest {
    fn client(&self, headers: &HeaderMap) -> IpAddr {
        self.connection.client(headers)
    }

    fn request_id(&self) -> &str {
        self.request_id.as_str()
    }

    fn begin_response(
        self: Arc<Self>,
        route: &Arc<Route>,
        ledger: &LedgerHandle,
    ) -> Box<dyn Downstream> {
        self.connection.tracker().begin_request(route);
        // A request has one response, so the cell is empty.
        let _ = self.ledger.set(ledger.clone());
        let admission = std::mem::replace(&mut *self.admission.lock(), Ok(None));
        Box::new(PendingResponse {
            admission,
            request: self,
        })
    }
}

/// The response to a request.
struct PendingResponse {
    admission: Admission,
    request: Arc<PendingRequest>,
}

impl fmt::Debug for PendingResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingResponse")
            .field("admission", &self.admission)
            .finish_non_exhaustive()
    }
}

impl Downstream for PendingResponse {
    fn admit(&mut self, _head: &Parts) -> Result<(), Rejection> {
        match &self.admission {
            Ok(_) => Ok(()),
            Err(rejection) => Err(rejection.clone()),
        }
    }

    fn abort_reason(&self) -> Option<&'static str> {
        #[cfg(feature = "http2")]
        if let Some(stream) = &self.request.stream
            && let Some(reason) = stream.end_reason()
        {
            return Some(reason);
        }
        self.request.connection.end_reason()
    }

    fn rate_limit(&self) -> Option<NonZeroU32> {
        self.request.connection.clients().limit_rate()
    }

    fn chunk_bytes(&self) -> usize {
        self.request.window().chunk_bytes
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
