//! HTTP client of the exporter. It blocks the exporter's own thread, for a bounded time.

use super::endpoint::TracesEndpoint;
use super::export::CollectorStatus;
use anyhow::{Result, ensure};
use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
    OTEL_EXPORTER_OTLP_TRACES_TIMEOUT,
};
use rustls::crypto::ring;
use std::env;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Maximum size of a collector's response, in bytes. A message of a partial success fits.
const RESPONSE_BYTES: u64 = 64 * 1024;

/// Maximum size of a collector's response head, in bytes.
const RESPONSE_HEAD_BYTES: usize = 16 * 1024;

/// Size of the client's buffers, in bytes.
const BUFFER_BYTES: usize = 32 * 1024;

/// Client of a collector.
#[derive(Debug)]
pub(super) struct CollectorClient {
    agent: Agent,
    status: Arc<CollectorStatus>,
}

impl CollectorClient {
    /// Returns a client of this collector. For `https` it trusts the root certificates of the system.
    ///
    /// # Errors
    /// The system has no root certificates.
    pub(super) fn new(endpoint: &TracesEndpoint, status: Arc<CollectorStatus>) -> Result<Self> {
        let mut tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
        if endpoint.is_https() {
            let found = rustls_native_certs::load_native_certs();
            ensure!(
                !found.certs.is_empty(),
                "there are no root certificates to check the collector's: install ca-certificates, or set SSL_CERT_FILE"
            );
            let certificates = found.certs.iter();
            let certificates = certificates.map(|der| Certificate::from_der(der).to_owned());
            tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates.collect())));
        }
        let config = Agent::config_builder()
            .timeout_global(Some(timeout()))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A collector is near. A variable for other programs must not lead the spans elsewhere.
            .proxy(None)
            .max_response_header_size(RESPONSE_HEAD_BYTES)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .max_idle_connections(1)
            .user_agent(concat!("millpond/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build();
        Ok(CollectorClient {
            agent: config.new_agent(),
            status,
        })
    }
}

/// Returns the maximum time of one request to the collector.
fn timeout() -> Duration {
    let variable = |name| env::var(name).ok()?.parse().ok();
    variable(OTEL_EXPORTER_OTLP_TRACES_TIMEOUT)
        .or_else(|| variable(OTEL_EXPORTER_OTLP_TIMEOUT))
        .filter(|milliseconds| *milliseconds > 0)
        .map_or(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Duration::from_millis)
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, content) = request.into_parts();
        let sent = self.agent.run(Request::from_parts(head, &content[..]));
        let received = sent.and_then(|response| {
            let (head, content) = response.into_parts();
            let content = content.into_with_config().limit(RESPONSE_BYTES);
            let content = content.read_to_vec()?;
            Ok(Response::from_parts(head, Bytes::from(content)))
        });
        received.map_err(|error| {
            // The exporter does not pass it on.
            self.status.note(&error);
            error.into()
        })
    }
}
