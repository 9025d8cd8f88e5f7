//! Interface between the service and the server that drives it: the connection's part in a response.

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Version};
use millpond_ledger::{AccessLogFields, LedgerHandle, LoggedHead, Route};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Bytes of a file that are read at a time, unless the client is known to be fast. Every response has room for them.
pub const CHUNK_BYTES: usize = 12 * 1024;

/// Name of the field with the id of a request. Proxies and other servers have the same one.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The connection of a request, which a server puts into the request's extensions. `millpond-server` does so.
///
/// It is optional. Without it the service does not know the client's address, reads files in small chunks, and has no
/// rate limit.
#[derive(Clone)]
pub struct Exchange(pub Arc<dyn BeginResponse>);

/// Starts the response to a request.
pub trait BeginResponse: Send + Sync {
    /// Returns the address of the client, which may be behind trusted proxies.
    fn client(&self, headers: &HeaderMap) -> IpAddr;

    /// Returns the id of the request, which the response has as `X-Request-Id`.
    fn request_id(&self) -> &str;

    /// Starts the response to a request of `route`. It lasts until the returned value is dropped.
    ///
    /// Meanwhile the connection charges `ledger` with the kernel memory of the response.
    fn begin_response(
        self: Arc<Self>,
        route: &Arc<Route>,
        ledger: &LedgerHandle,
    ) -> Box<dyn Downstream>;
}

/// The connection's part in one response, from the head of the request to the last byte. `millpond-server` implements it.
pub trait Downstream: fmt::Debug + Send + Sync {
    /// Admits a request whose head is complete.
    ///
    /// # Errors
    /// [`Rejection`], if the head is malformed or the client exceeds its limits.
    fn admit(&mut self, head: &Parts) -> Result<(), Rejection>;

    /// Returns why the server has cut the response. `None` if it has not, or if the client has left.
    fn abort_reason(&self) -> Option<&'static str> {
        None
    }

    /// Returns the bytes of a file to read at a time, depending on the speed of the client. At least [`CHUNK_BYTES`].
    fn chunk_bytes(&self) -> usize;

    /// Returns the rate limit of the response, in bytes per second.
    fn rate_limit(&self) -> Option<NonZeroU32>;
}

/// The head of a request as a server has parsed it. The request has no content, and no fields about the connection.
pub trait SimpleHead {
    /// Method, `GET` or `HEAD`.
    fn method(&self) -> &Method;

    /// Target, in origin-form.
    fn target(&self) -> &str;

    /// Version of HTTP.
    fn version(&self) -> Version;

    /// Returns the address of the client, which may be behind trusted proxies.
    fn client(&self) -> IpAddr;

    /// Id of the request, which the response has as `X-Request-Id`.
    fn request_id(&self) -> &str;

    /// Returns the lines of a field, in order.
    fn lines<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a, Self>;

    /// Bytes that the request is charged for its head.
    fn held_bytes(&self) -> usize;
}

/// Returns the head of a request, as its log line needs it. Fields for traces are looked up only if `wanted` has them.
#[must_use]
pub fn logged_head<'a>(
    head: &'a Parts,
    client: Option<IpAddr>,
    request_id: Option<&'a str>,
    wanted: AccessLogFields,
) -> LoggedHead<'a> {
    let field = |name| head.headers.get(name).map(HeaderValue::as_bytes);
    let (trace_parent, trace_state) = trace_fields(wanted, |name| {
        let lines = head.headers.get_all(name).iter();
        lines.map(HeaderValue::as_bytes)
    });
    LoggedHead {
        target: head.uri.path_and_query().map_or("", PathAndQuery::as_str),
        version: head.version,
        client,
        request_id,
        host: field(header::HOST),
        referrer: field(header::REFERER),
        user_agent: field(header::USER_AGENT),
        trace_parent,
        trace_state,
    }
}

/// Returns `traceparent` and `tracestate` of a request, by the lines of a field, if `wanted` has them. A field of several lines is as none:
/// a second `traceparent` makes it invalid, and a `tracestate` may be dropped (W3C Trace Context section 3).
pub(crate) fn trace_fields<'a, L: Iterator<Item = &'a [u8]>>(
    wanted: AccessLogFields,
    lines: impl Fn(&HeaderName) -> L,
) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
    const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
    const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");
    if !wanted.trace {
        return (None, None);
    }
    let only = |name: &HeaderName| {
        let mut lines = lines(name);
        lines.next().filter(|_| lines.next().is_none())
    };
    match only(&TRACE_PARENT) {
        Some(trace_parent) => (Some(trace_parent), only(&TRACE_STATE)),
        None => (None, None),
    }
}

/// A request that the server rejects before the guest sees it. The service sends the response and logs it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// Status of the response.
    pub status: StatusCode,
    /// Message in the response.
    pub message: &'static str,
    /// Reason in the log.
    pub reason: String,
    /// `Retry-After`, in seconds (RFC 9110 section 10.2.3).
    pub retry_after_seconds: Option<u64>,
}
