//! The admin listener: dashboard, health, readiness, metrics, memory and live requests of the process.

mod access;
mod cache;
#[cfg(feature = "tls")]
mod certificate_metrics;
mod connection;
mod dashboard;
mod figures;
mod readiness;
mod reload;
mod report;
mod response;
mod verdict;

pub use access::{AdminToken, InvalidToken};
pub use cache::CacheRequest;
#[cfg(feature = "tls")]
pub use certificate_metrics::register_certificate;
pub use report::write_report;

use crate::admin::cache::CacheHook;
use crate::admin::reload::ReloadHook;
use crate::tls::Certificate;
use access::{AccessRefusal, Protection};
use connection::TakenEvents;
use dashboard::{DASHBOARD_BYTES, Dashboard, page};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use millpond::Millpond;
use millpond::memory_plan::ADMIN_BYTES;
use millpond::metrics::{self, TextFormat};
use millpond::monitor::Monitor;
use prometheus_client::registry::Registry;
use readiness::Readiness;
use response::{AdminBody, json, respond, text, with_field};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Maximum concurrent connections of the admin listener.
const CONNECTIONS: usize = 16;

/// Maximum live requests in a list.
const REQUESTS: usize = 10_000;

/// Maximum size of a connection's buffer in user space, for each direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// Send buffer of a connection in the kernel (`SO_SNDBUF`). The kernel doubles it. A client that reads no events keeps
/// as much.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

const _: () =
    assert!(CONNECTIONS * 2 * (BUFFER_BYTES + SEND_BUFFER_BYTES) + DASHBOARD_BYTES <= ADMIN_BYTES);

/// Maximum size of the form with the token, in bytes.
const FORM_BYTES: usize = 4 * 1024;

/// The admin service of one host. Clones share it.
#[derive(Debug, Clone)]
pub struct Admin {
    millpond: Millpond,
    watch: Monitor,
    metrics: Arc<Registry>,
    readiness: Readiness,
    reload: Option<ReloadHook>,
    cache: Option<CacheHook>,
    token: Option<Arc<AdminToken>>,
    certificate: Option<Certificate>,
    dashboard: Arc<OnceLock<Arc<Dashboard>>>,
}

/// The error of an address that other machines reach, for a service without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("other machines reach the admin listener on {address}, so it needs a token")]
pub struct TokenRequired {
    /// Address of the listener.
    pub address: SocketAddr,
}

impl Admin {
    /// Creates the admin service of a host and its monitor. `registry` has the program's own metrics, which `/metrics`
    /// lists before the host's. `/readyz` fails once `stopping` is cancelled.
    #[must_use]
    pub fn new(
        mut registry: Registry,
        millpond: Millpond,
        watch: Monitor,
        stopping: CancellationToken,
    ) -> Self {
        metrics::register_process(&mut registry);
        metrics::register(&mut registry, &millpond, Some(&watch));
        let readiness = Readiness {
            millpond: millpond.clone(),
            monitor: watch.clone(),
            stopping,
        };
        registry.register_collector(Box::new(readiness.clone()));
        Admin {
            metrics: Arc::new(registry),
            millpond,
            watch,
            readiness,
            reload: None,
            cache: None,
            token: None,
            certificate: None,
            dashboard: Arc::default(),
        }
    }

    /// Has `POST /reload` call a function that reloads the settings of the program. Its JSON is the content of the
    /// response, which has status 200, or 400 for an error.
    #[must_use]
    pub fn with_reload<F, R>(mut self, reload: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<serde_json::Value, serde_json::Value>> + Send + 'static,
    {
        self.reload = Some(ReloadHook::new(reload));
        self
    }

    /// Has requests for `/cache` and the paths beneath it call a function, which has the cache of media from an origin. It
    /// returns status and JSON of the response.
    #[must_use]
    pub fn with_cache<F, R>(mut self, respond: F) -> Self
    where
        F: Fn(CacheRequest) -> R + Send + Sync + 'static,
        R: Future<Output = (StatusCode, serde_json::Value)> + Send + 'static,
    {
        self.cache = Some(CacheHook::new(respond));
        self
    }

    /// Sets the token that requests need. Probes need none, and neither does `/metrics` on a loopback address.
    #[must_use]
    pub fn with_token(mut self, token: AdminToken) -> Self {
        self.token = Some(Arc::new(token));
        self
    }

    /// Sets the certificate whose validity the dashboard shows.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Checks that the service may listen on an address. A listener that other machines reach answers probes only, if
    /// there is no token.
    ///
    /// # Errors
    /// [`TokenRequired`], if the address is not a loopback address and there is no token.
    pub fn check(&self, address: SocketAddr) -> Result<(), TokenRequired> {
        match self.token.is_some() || access::is_loopback(address.ip()) {
            true => Ok(()),
            false => Err(TokenRequired { address }),
        }
    }

    /// Serves until the process ends. The first call starts the history of the dashboard.
    pub async fn serve(self, listener: TcpListener) {
        let Ok(listening) = listener.local_addr() else {
            return;
        };
        self.dashboard();
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = listener.accept().await else {
                // The process is most likely out of file descriptors. The client can retry.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let admin = self.clone();
            tokio::spawn(async move {
                admin.serve_connection(stream, listening).await;
                drop(permit);
            });
        }
    }

    async fn serve_connection(self, stream: TcpStream, listening: SocketAddr) {
        // With a larger buffer it works as well.
        let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
        let taken = TakenEvents::default();
        let service = service_fn(|request: Request<Incoming>| {
            let (admin, taken) = (self.clone(), taken.clone());
            async move { Ok::<_, Infallible>(admin.answer(request, listening, taken).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .half_close(true)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        // A client that exceeds the time, or disconnects, can retry.
        connection::run(connection, &taken).await;
    }

    /// Answers one request of a listener at `listening`.
    async fn answer(
        &self,
        request: Request<Incoming>,
        listening: SocketAddr,
        taken: TakenEvents,
    ) -> Response<AdminBody> {
        let protection = protection(request.uri().path());
        let token = self.token.as_deref();
        match access::check(request.headers(), listening, token, protection) {
            Ok(()) => self.route(request, taken).await,
            Err(refusal) => refuse(refusal, &request, token.is_some()),
        }
    }

    /// Answers a request that is allowed.
    async fn route(&self, request: Request<Incoming>, taken: TakenEvents) -> Response<AdminBody> {
        let path = request.uri().path();
        if let (Some(hook), "/reload") = (&self.reload, path) {
            let (status, content) = hook.respond(request.method()).await;
            return respond(status, "application/json", format!("{content:#}\n"));
        }
        if let (Some(hook), Some(path)) = (&self.cache, CacheHook::path(request.uri())) {
            let responded = hook.respond(request.method(), request.uri(), path);
            let (status, content) = responded.await;
            return respond(status, "application/json", format!("{content:#}\n"));
        }
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, _) => self.get(&request, taken),
            (&Method::POST, "/login") => self.log_in(request).await,
            _ => not_allowed(path),
        }
    }

    /// Answers a GET or HEAD.
    fn get(&self, request: &Request<Incoming>, taken: TakenEvents) -> Response<AdminBody> {
        match request.uri().path() {
            "/" | "/dashboard" => page::index(),
            "/login" => page::login(false),
            "/events" => self.events(request, taken),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.readiness.unready() {
                None => text(StatusCode::OK, "ready\n"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
            },
            "/memory" => json(&figures::Memory::of(&self.millpond, &self.watch.last())),
            "/requests" => json(&self.millpond.registry().live_requests(REQUESTS)),
            "/metrics" => self.encode_metrics(request.headers().get(header::ACCEPT)),
            path => page::file(path).unwrap_or_else(|| {
                text(
                    StatusCode::NOT_FOUND,
                    "not found, try /, /metrics, /healthz, /readyz, /memory, /requests or POST /reload\n",
                )
            }),
        }
    }

    fn events(&self, request: &Request<Incoming>, taken: TakenEvents) -> Response<AdminBody> {
        if request.method() == Method::HEAD {
            return respond(StatusCode::OK, "text/event-stream", "");
        }
        let last_event_id = request.headers().get("last-event-id");
        let last_event_id = last_event_id.and_then(|id| id.to_str().ok());
        let events = self.dashboard().watch(last_event_id, taken);
        events.unwrap_or_else(|| {
            let busy = text(StatusCode::SERVICE_UNAVAILABLE, "too many pages watch\n");
            with_field(busy, header::RETRY_AFTER, HeaderValue::from_static("5"))
        })
    }

    /// Answers the form with the token. The right one gets a cookie.
    async fn log_in(&self, request: Request<Incoming>) -> Response<AdminBody> {
        let form = Limited::new(request.into_body(), FORM_BYTES);
        let Ok(form) = form.collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the form is too large\n");
        };
        let form = form.to_bytes();
        let mut pairs = form_urlencoded::parse(&form);
        let shown = pairs.find_map(|(name, value)| (name == "token").then_some(value));
        let shown = shown.unwrap_or_default();
        let token = self.token.as_deref();
        let cookie = token
            .filter(|token| token.is(shown.trim()))
            .and_then(|token| HeaderValue::try_from(token.set_cookie()).ok());
        let Some(cookie) = cookie else {
            return page::login(true);
        };
        let response = text(StatusCode::SEE_OTHER, "");
        let response = with_field(response, header::SET_COOKIE, cookie);
        with_field(response, header::LOCATION, HeaderValue::from_static("/"))
    }

    /// Returns the metrics in the format that `Accept` asks for.
    fn encode_metrics(&self, accept: Option<&HeaderValue>) -> Response<AdminBody> {
        let accept = accept.and_then(|accept| accept.to_str().ok());
        let format = TextFormat::negotiate(accept);
        match metrics::encode(&self.metrics, format) {
            Ok(metrics) => respond(StatusCode::OK, format.content_type(), metrics),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write metrics\n"),
        }
    }

    /// Returns the dashboard, and starts it at the first call.
    fn dashboard(&self) -> &Arc<Dashboard> {
        self.dashboard.get_or_init(|| {
            let (millpond, monitor) = (self.millpond.clone(), self.watch.clone());
            let (readiness, certificate) = (self.readiness.clone(), self.certificate.clone());
            Dashboard::start(millpond, monitor, readiness, certificate)
        })
    }
}

fn protection(path: &str) -> Protection {
    match path {
        "/healthz" | "/readyz" => Protection::Probe,
        "/metrics" => Protection::Metrics,
        "/login" | "/dashboard.css" | "/dashboard.js" | "/icon.svg" => Protection::Open,
        _ => Protection::Token,
    }
}

fn not_allowed(path: &str) -> Response<AdminBody> {
    let allowed = match path {
        "/login" => "GET, HEAD, POST",
        _ => "GET, HEAD",
    };
    let response = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("the methods here are {allowed}\n"),
    );
    with_field(response, header::ALLOW, HeaderValue::from_static(allowed))
}

/// Answers a request that is refused. A browser without a token gets the form that asks for it.
fn refuse(
    refusal: AccessRefusal,
    request: &Request<Incoming>,
    has_token: bool,
) -> Response<AdminBody> {
    match refusal {
        AccessRefusal::Host => text(
            StatusCode::MISDIRECTED_REQUEST,
            "Host is not a name of this machine: use localhost, or the address of the listener\n",
        ),
        AccessRefusal::Origin => text(StatusCode::FORBIDDEN, "the request is from another site\n"),
        AccessRefusal::Token if !has_token => text(
            StatusCode::UNAUTHORIZED,
            "this listener has no token, so it answers probes only\n",
        ),
        AccessRefusal::Token => {
            let accept = request.headers().get(header::ACCEPT);
            let accept = accept.and_then(|accept| accept.to_str().ok());
            let response = match accept.is_some_and(|accept| accept.contains("text/html")) {
                true => page::login(false),
                false => text(
                    StatusCode::UNAUTHORIZED,
                    "the admin token is needed, as Authorization: Bearer TOKEN\n",
                ),
            };
            let challenge = HeaderValue::from_static("Bearer realm=\"millpond\"");
            with_field(response, header::WWW_AUTHENTICATE, challenge)
        }
    }
}
