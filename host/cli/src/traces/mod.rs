//! Traces of OpenTelemetry: a span for each request, sent to a collector by OTLP over HTTP.
//!
//! A span is made when its request ends, from the line of the access log. The SDK samples the spans and sends them on a
//! thread of its own. A collector that hangs delays no request.

mod client;
mod endpoint;
mod export;
mod parent;
mod queue;
mod span;

pub(crate) use endpoint::{CollectorUrl, TracesEndpoint};
pub(crate) use queue::SPAN_QUEUE_BYTES;
pub(crate) use span::Scheme;

use crate::log::QueuedAccessLog;
use anyhow::{Context, Result};
use client::CollectorClient;
use export::{CollectorStatus, MonitoredExporter};
use millpond::ledger::AccessLog;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use prometheus_client::collector::Collector;
use queue::{BATCH_SPANS, BoundedProcessor, DroppedSpansCollector, QUEUED_SPANS, SpanQueue};
use span::TracedAccessLog;
use std::sync::Arc;
use std::time::Duration;

/// Maximum time to send the waiting spans at the end of the process.
const FLUSH_TIME: Duration = Duration::from_secs(2);

/// The running export of spans.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    queue: Arc<SpanQueue>,
    scheme: Scheme,
}

impl Traces {
    /// Starts the thread that sends spans to the collector. No connection is made before the first span.
    ///
    /// # Errors
    /// There are no root certificates for `https`, or a variable of the exporter has a value that it does not support.
    pub(crate) fn start(endpoint: &TracesEndpoint, scheme: Scheme) -> Result<Self> {
        let queue = Arc::new(SpanQueue::default());
        let status = Arc::new(CollectorStatus::default());
        let client = CollectorClient::new(endpoint, Arc::clone(&status))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(endpoint.url())
            // One that restarts is met again a little later. The other spans wait meanwhile.
            .with_retry_policy(RetryPolicy::default().with_max_retries(1))
            .build()
            .context("cannot send traces")?;
        let exporter = MonitoredExporter {
            exporter,
            queue: Arc::clone(&queue),
            status,
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUED_SPANS)
            .with_max_export_batch_size(BATCH_SPANS)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_span_processor(BoundedProcessor {
                processor,
                queue: Arc::clone(&queue),
            })
            .build();
        Ok(Traces {
            provider,
            queue,
            scheme,
        })
    }

    /// Returns an access log that makes the spans, and passes the lines on to this one.
    pub(crate) fn access_log(&self, log: Arc<QueuedAccessLog>) -> Arc<dyn AccessLog> {
        Arc::new(TracedAccessLog {
            log,
            tracer: self.provider.tracer("millpond"),
            scheme: self.scheme,
        })
    }

    /// Returns the collector of the dropped spans, for `/metrics`.
    pub(crate) fn dropped_spans_collector(&self) -> Box<dyn Collector> {
        Box::new(DroppedSpansCollector(Arc::clone(&self.queue)))
    }

    /// Sends the waiting spans, for [`FLUSH_TIME`] at most.
    pub(crate) fn flush(self) {
        // The number of spans that are left says it better.
        let _ = self.provider.shutdown_with_timeout(FLUSH_TIME);
        let waiting = self.queue.waiting_spans();
        if waiting > 0 {
            tracing::warn!(
                spans = waiting,
                "the collector did not take all traces before the end"
            );
        }
    }
}

/// Returns the description of this process in each batch. Variables of OpenTelemetry override it.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let given = Resource::builder().build();
    let name = given.get(&Key::from_static_str("service.name"));
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let has_version = given
        .get(&Key::from_static_str("service.version"))
        .is_some();
    let mut resource = Resource::builder();
    if !is_named {
        resource = resource.with_service_name("millpond");
    }
    if !has_version {
        resource = resource.with_attribute(version);
    }
    resource.build()
}
