//! HTTP client for origins, on which the object stores run.
//!
//! Each connection has bounded buffers, in the process and in the kernel. No time bounds a whole response: its head and
//! each part of its body have a time of their own.

mod addresses;
mod counts;
mod passed_fields;
mod redirect;
mod response_body;

use addresses::{AddressScope, OriginResolver};
use async_trait::async_trait;
use counts::TransferCounts;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector as StoreConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use parking_lot::Mutex;
use passed_fields::passed_on;
use redirect::{REDIRECTS, RedirectError, redirected};
use response_body::ResponseContent;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Maximum time to connect, with the TLS handshake's own time beside it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time from a request to the head of its response.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Minimum rate at which the content of a request is sent, in bytes a second. A slower upload is a dead one.
const MIN_SEND_RATE: u64 = 16 * 1024;

/// Maximum time from a request that changes something to the head of its response. A store that puts the parts of a large
/// upload together takes its time.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);

/// Size of a connection's read buffer in the process, in bytes. A response head has to fit.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Receive buffer of a connection in the kernel (`SO_RCVBUF`), in bytes. The kernel doubles it.
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;

/// Maximum number of idle connections to one server.
const IDLE_CONNECTIONS: usize = 16;

/// Time after which an idle connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a response that is read whole, such as a list or credentials, in bytes.
const WHOLE_RESPONSE_BYTES: u64 = 4 * 1024 * 1024;

/// Maximum size of an error response, in bytes.
const ERROR_RESPONSE_BYTES: u64 = 64 * 1024;

type HttpsClient = Client<HttpsConnector<HttpConnector<OriginResolver>>, HttpRequestBody>;

/// Client for one origin. Clones share their connections.
#[derive(Clone)]
pub(crate) struct OriginClient(Arc<ClientState>);

struct ClientState {
    /// For the origin itself, at any address.
    direct: HttpsClient,
    /// For redirects to other servers.
    redirected: HttpsClient,
    permits: Arc<Semaphore>,
    allow_private_redirects: bool,
    /// Whether requests have `Via` (RFC 9110 section 7.6.3).
    has_via: bool,
    counts: Arc<TransferCounts>,
}

/// Mark of a request whose response is read part by part, so that it may be of any length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadInParts;

/// Place for the fields of the last response to a request. The object stores drop those of a 304.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldsSlot(Arc<Mutex<Option<HeaderMap>>>);

impl FieldsSlot {
    /// Takes the fields out.
    pub(crate) fn take(&self) -> Option<HeaderMap> {
        self.0.lock().take()
    }
}

/// Fields of a response, among its extensions. The object stores return only some of the fields.
#[derive(Debug, Clone)]
pub(crate) struct OriginFields(pub(crate) HeaderMap);

impl OriginClient {
    /// Returns a client with this many connections at most. Without `needs_roots`, it can do without root certificates.
    ///
    /// # Errors
    /// The system has no root certificates.
    pub(crate) fn new(
        connections: usize,
        allow_private_redirects: bool,
        has_via: bool,
        needs_roots: bool,
    ) -> io::Result<Self> {
        let direct = https_client(AddressScope::Any, needs_roots)?;
        let scope = match allow_private_redirects {
            true => AddressScope::Any,
            false => AddressScope::Public,
        };
        let redirected = https_client(scope, needs_roots)?;
        Ok(OriginClient(Arc::new(ClientState {
            direct,
            redirected,
            permits: Arc::new(Semaphore::new(connections)),
            allow_private_redirects,
            has_via,
            counts: Arc::default(),
        })))
    }

    /// Counts since the start.
    pub(crate) fn counts(&self) -> &TransferCounts {
        &self.0.counts
    }

    async fn send(
        &self,
        request: HttpRequest,
        is_redirected: bool,
    ) -> Result<Response<Incoming>, HttpError> {
        let client = match is_redirected {
            true => &self.0.redirected,
            false => &self.0.direct,
        };
        self.0.counts.requests.fetch_add(1, Ordering::Relaxed);
        let response = timeout(head_timeout(&request), client.request(request)).await;
        let response =
            response.map_err(|elapsed| HttpError::new(HttpErrorKind::Timeout, elapsed))?;
        response.map_err(|error| {
            let kind = match error.is_connect() {
                true => HttpErrorKind::Connect,
                false => HttpErrorKind::Request,
            };
            HttpError::new(kind, error)
        })
    }

    /// Sends a request, and follows redirects of those that only read.
    async fn follow(&self, request: HttpRequest) -> Result<Response<Incoming>, HttpError> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if !is_read {
            return self.send(request, false).await;
        }
        let (origin, mut next) = (request.uri().clone(), Some(request));
        let mut is_redirected = false;
        for _ in 0..=REDIRECTS {
            let Some(request) = next.take() else {
                break;
            };
            let (uri, copy) = (request.uri().clone(), copy_of(&request));
            let response = self.send(request, is_redirected).await?;
            let location = response.headers().get(header::LOCATION);
            let Some(location) = location.filter(|_| is_redirect(response.status())) else {
                return Ok(response);
            };
            let allow_private = self.0.allow_private_redirects;
            let target = redirected(&origin, &uri, location, allow_private);
            let target = target.map_err(refused)?;
            is_redirected = target.is_other_server;
            next = Some(redirect::request(copy, &target));
        }
        Err(refused(RedirectError::TooMany))
    }
}

#[async_trait]
impl HttpService for OriginClient {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await;
        let permit = permit.map_err(|closed| HttpError::new(HttpErrorKind::Unknown, closed))?;
        let slot = request.extensions().get::<FieldsSlot>().cloned();
        let is_in_parts = request.extensions().get::<ReadInParts>().is_some();
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            // A coding would change the bytes and the offsets.
            let identity = HeaderValue::from_static("identity");
            request
                .headers_mut()
                .insert(header::ACCEPT_ENCODING, identity);
        }
        let agent = HeaderValue::from_static(concat!("millpond/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        if self.0.has_via {
            let via = HeaderValue::from_static("1.1 millpond");
            request.headers_mut().insert(header::VIA, via);
        }
        let response = self.follow(request).await?;
        let (mut parts, body) = response.into_parts();
        let max_bytes = match parts.status.is_success() {
            true if is_in_parts => u64::MAX,
            true => WHOLE_RESPONSE_BYTES,
            false => ERROR_RESPONSE_BYTES,
        };
        let is_of_object = is_in_parts || slot.is_some();
        if let Some(slot) = slot {
            *slot.0.lock() = Some(parts.headers.clone());
        }
        parts.extensions.insert(OriginFields(parts.headers.clone()));
        if is_of_object && parts.status.is_success() {
            parts.headers = passed_on(&parts.headers);
        }
        let counts = Arc::clone(&self.0.counts);
        let content = ResponseContent::new(body, max_bytes, counts, permit);
        Ok(Response::from_parts(parts, HttpResponseBody::new(content)))
    }
}

impl StoreConnector for OriginClient {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl fmt::Debug for OriginClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginClient").finish_non_exhaustive()
    }
}

fn https_client(scope: AddressScope, needs_roots: bool) -> io::Result<HttpsClient> {
    let mut connector = HttpConnector::new_with_resolver(OriginResolver(scope));
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_recv_buffer_size(Some(RECEIVE_BUFFER_BYTES));
    let provider = rustls::crypto::ring::default_provider();
    let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider.clone());
    let builder = match builder {
        Ok(builder) => builder,
        // A plain HTTP origin is served without them. A redirect to HTTPS fails then.
        Err(_) if !needs_roots => {
            let config = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
            HttpsConnectorBuilder::new().with_tls_config(config)
        }
        Err(error) => return Err(error),
    };
    let connector = builder
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(READ_BUFFER_BYTES)
        .build(connector))
}

/// Returns the maximum time to the head of a response. The content of the request is sent in it.
fn head_timeout(request: &HttpRequest) -> Duration {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return HEAD_TIMEOUT;
    }
    let bytes = request.body().content_length() as u64;
    CHANGE_TIMEOUT + Duration::from_secs(bytes / MIN_SEND_RATE)
}

/// Returns a request without content, with the same fields.
fn copy_of(request: &HttpRequest) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    )
}

fn refused(error: RedirectError) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}
