//! The seam between the service and the server that drives it: the connection's part in one response.

use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use millpond_ledger::{LedgerHandle, Route};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Bytes that are read of a file at a time unless the client is known to be fast: every response has room for them.
pub const CHUNK_BYTES: usize = 12 * 1024;

/// The connection that a request came on, which a server puts into the request's extensions.
///
/// Without one the service answers all the same: it knows no client's address then, reads files by small chunks, and holds
/// nothing back.
#[derive(Clone)]
pub struct Exchange(pub Arc<dyn BeginResponse>);

/// Begins the response to a request.
pub trait BeginResponse: Send + Sync {
    /// Begins the response to a request of that route. It lasts until what is returned is dropped. The connection charges
    /// that ledger meanwhile with what the kernel holds for the response.
    fn begin_response(
        self: Arc<Self>,
        route: &Arc<Route>,
        ledger: &LedgerHandle,
    ) -> Box<dyn Downstream>;
}

/// The connection's part in one response, from the request's head to the last byte.
pub trait Downstream: fmt::Debug + Send + Sync {
    /// Takes the request in, once its head has been received.
    ///
    /// # Errors
    /// [`Rejection`], when the head is malformed or the client asks for too much.
    fn admit(&mut self, head: &Parts) -> Result<(), Rejection>;

    /// Whether the connection ends with this response, so that its head says so (RFC 9112 section 9.6).
    fn is_last(&self) -> bool;

    /// The address of the client, which may be behind proxies that the server trusts.
    fn client(&self, headers: &HeaderMap) -> IpAddr;

    /// Bytes of a file that are read at a time now, by how fast the client takes them: [`CHUNK_BYTES`] at least.
    fn chunk_bytes(&self) -> usize;

    /// Bytes a second that the response is held back to, if it is.
    fn rate_limit(&self) -> Option<NonZeroU32>;
}

/// A request's head as a server has parsed it, before it is a [`Parts`]. It asks for no content and says nothing about the
/// connection.
pub trait SimpleHead {
    /// `GET` or `HEAD`.
    fn method(&self) -> &Method;

    /// The target, in origin-form.
    fn target(&self) -> &str;

    /// The lines of a field, in their order.
    fn lines<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a, Self>;

    /// Bytes that the request is charged with for its head.
    fn held_bytes(&self) -> usize;
}

/// A request that the server refuses before the guest sees it. The service answers it and logs it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// The status of the response.
    pub status: StatusCode,
    /// The message in the response.
    pub message: &'static str,
    /// The reason in the log.
    pub reason: String,
    /// When the client may ask again, in seconds (RFC 9110 section 10.2.3).
    pub retry_after_seconds: Option<u64>,
    /// Whether the connection ends with the response.
    pub closes: bool,
}
