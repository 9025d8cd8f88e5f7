//! The admin listener: health, readiness, metrics, memory and live requests of the process.

#[cfg(feature = "tls")]
mod certificate_metrics;
mod figures;
mod readiness;
mod reload;
mod report;

#[cfg(feature = "tls")]
pub use certificate_metrics::register_certificate;
pub use report::write_report;

use crate::admin::reload::ReloadHook;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use millpond::Millpond;
use millpond::metrics::{self, TextFormat};
use millpond::monitor::Monitor;
use prometheus_client::registry::Registry;
use readiness::Readiness;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Maximum concurrent connections of the admin listener.
const CONNECTIONS: usize = 16;

/// Maximum lifetime of one of them.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// Maximum live requests in a list.
const REQUESTS: usize = 10_000;

/// The admin service of one host.
#[derive(Debug, Clone)]
pub struct Admin {
    millpond: Millpond,
    watch: Monitor,
    metrics: Arc<Registry>,
    readiness: Readiness,
    reload: Option<ReloadHook>,
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

    /// Serves until the process ends.
    pub async fn serve(self, listener: TcpListener) {
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
                let service = service_fn(async |request: Request<Incoming>| {
                    let (method, path) = (request.method(), request.uri().path());
                    Ok::<_, Infallible>(match (&admin.reload, path) {
                        (Some(hook), "/reload") => {
                            let (status, content) = hook.respond(method, request.headers()).await;
                            respond(status, "application/json", format!("{content:#}\n"))
                        }
                        _ => admin.answer(method, path, request.headers()),
                    })
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .half_close(true)
                    .serve_connection(TokioIo::new(stream), service);
                // A client that exceeds the time, or disconnects, can retry.
                let _ = timeout(CONNECTION_TIME, connection).await;
                drop(permit);
            });
        }
    }

    /// Answers one request with these fields.
    #[must_use]
    pub fn answer(&self, method: &Method, path: &str, fields: &HeaderMap) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.readiness.unready() {
                None => text(StatusCode::OK, "ready\n"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
            },
            "/memory" => json(&figures::Memory::of(&self.millpond, &self.watch.last())),
            "/requests" => json(&self.millpond.registry().live_requests(REQUESTS)),
            "/metrics" => self.encode_metrics(fields.get(header::ACCEPT)),
            _ => text(
                StatusCode::NOT_FOUND,
                "not found, try /metrics, /healthz, /readyz, /memory, /requests or POST /reload\n",
            ),
        }
    }

    /// Returns the metrics in the format that `Accept` asks for.
    fn encode_metrics(&self, accept: Option<&HeaderValue>) -> Response<Full<Bytes>> {
        let accept = accept.and_then(|accept| accept.to_str().ok());
        let format = TextFormat::negotiate(accept);
        match metrics::encode(&self.metrics, format) {
            Ok(metrics) => respond(StatusCode::OK, format.content_type(), metrics),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write metrics\n"),
        }
    }
}

fn text(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text.into())
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(value) {
        Ok(json) => respond(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn respond(status: StatusCode, media_type: &'static str, content: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(content)));
    *response.status_mut() = status;
    let media_type = http::HeaderValue::from_static(media_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    let no_store = http::HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}
