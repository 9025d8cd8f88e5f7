//! Bound of the spans that wait to be sent. Spans beyond it are dropped and counted, because no request waits for them.

use opentelemetry::trace::Status;
use opentelemetry::{Array, Context, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanProcessor};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use std::fmt;
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Memory reserved for traces, in bytes: the queue of spans, a batch as it is encoded, and the connection to the
/// collector. It is reserved only if traces are on.
pub(crate) const SPAN_QUEUE_BYTES: usize = 6 * 1024 * 1024;

/// Maximum number of spans that wait to be sent, as in other SDKs.
pub(super) const QUEUED_SPANS: usize = 2048;

/// Maximum number of spans in one request to the collector. Its encoded copy is part of [`SPAN_QUEUE_BYTES`].
pub(super) const BATCH_SPANS: usize = 128;

/// Maximum size of the names and attributes of the spans that wait to be sent, in bytes.
const QUEUED_BYTES: usize = 2 * 1024 * 1024;

/// Maximum size of the list of a `tracestate` beside its text, in bytes: 32 members of two texts.
const TRACE_STATE_BYTES: usize = 32 * 2 * size_of::<String>();

/// Maximum size of the encoding of a span, in bytes: each text of a request at its maximum, with replaced bytes.
const LARGEST_SPAN_BYTES: usize = 8 * 1024;

// A batch is copied for its encoding, and the encoding once for each attempt. The slots of the queue are allocated at
// once.
const _: () = assert!(
    QUEUED_SPANS * size_of::<SpanData>() + QUEUED_BYTES + 2 * BATCH_SPANS * LARGEST_SPAN_BYTES
        <= SPAN_QUEUE_BYTES
);

/// Counts of the spans that wait, and of those that are lost.
#[derive(Debug, Default)]
pub(super) struct SpanQueue {
    spans: AtomicUsize,
    bytes: AtomicUsize,
    dropped_full: AtomicU64,
    dropped_failed: AtomicU64,
}

impl SpanQueue {
    /// Counts a span as waiting. Returns `false`, and counts it as dropped, if there is no room for it.
    fn enter(&self, span: &SpanData) -> bool {
        let bytes = heap_bytes(span);
        let spans_before = self.spans.fetch_add(1, Ordering::AcqRel);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let has_room = spans_before < QUEUED_SPANS && bytes_before + bytes <= QUEUED_BYTES;
        if !has_room {
            self.leave(1, bytes);
            self.dropped_full.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    /// Counts spans as no longer waiting. `bytes` is the sum of their [`heap_bytes`].
    pub(super) fn leave(&self, spans: usize, bytes: usize) {
        self.spans.fetch_sub(spans, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Counts spans that the collector did not take.
    pub(super) fn drop_failed(&self, spans: usize) {
        let spans = spans as u64;
        self.dropped_failed.fetch_add(spans, Ordering::Relaxed);
    }

    /// Number of spans that were made and neither sent nor dropped.
    pub(super) fn waiting_spans(&self) -> usize {
        self.spans.load(Ordering::Acquire)
    }
}

/// Returns the memory of a span beside its slot in the queue, in bytes.
pub(super) fn heap_bytes(span: &SpanData) -> usize {
    let attributes = span.attributes.iter();
    let texts: usize = attributes
        .map(|attribute| match &attribute.value {
            Value::String(text) => text.as_str().len(),
            Value::Array(Array::String(texts)) => {
                texts.iter().map(|text| text.as_str().len()).sum()
            }
            _ => 0,
        })
        .sum();
    let state = match span.span_context.trace_state().header().len() {
        0 => 0,
        length => length + TRACE_STATE_BYTES,
    };
    let reason = match &span.status {
        Status::Error { description } => description.len(),
        _ => 0,
    };
    let slots = span.attributes.capacity() * size_of::<opentelemetry::KeyValue>();
    span.name.len() + slots + texts + state + reason
}

/// Processor that drops the spans for which there is no room, before the processor of the SDK gets them.
#[derive(Debug)]
pub(super) struct BoundedProcessor {
    pub(super) processor: BatchSpanProcessor,
    pub(super) queue: Arc<SpanQueue>,
}

impl SpanProcessor for BoundedProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.processor.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.queue.enter(&span) {
            self.processor.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

/// Collector of the number of dropped spans.
#[derive(Debug)]
pub(super) struct DroppedSpansCollector(pub(super) Arc<SpanQueue>);

impl Collector for DroppedSpansCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help =
            "Spans that were lost, because the queue was full or the collector did not take them.";
        let (name, metric_type) = ("millpond_dropped_spans", MetricType::Counter);
        let mut family = encoder.encode_descriptor(name, help, None, metric_type)?;
        for (reason, count) in [
            ("full", &self.0.dropped_full),
            ("failed", &self.0.dropped_failed),
        ] {
            let dropped_spans = ConstCounter::new(count.load(Ordering::Relaxed));
            dropped_spans.encode(family.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind};
    use opentelemetry::{InstrumentationScope, KeyValue};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use std::time::SystemTime;

    fn span(text_bytes: usize) -> SpanData {
        SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Server,
            name: "GET /media".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: vec![KeyValue::new("url.path", "x".repeat(text_bytes))],
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    #[test]
    fn spans_beyond_the_number_or_the_size_are_dropped_and_counted() {
        for text_bytes in [1, 100, 8192] {
            let (queue, span) = (SpanQueue::default(), span(text_bytes));
            let room = QUEUED_SPANS.min(QUEUED_BYTES / heap_bytes(&span));
            let entered = (0..room + 3).filter(|_| queue.enter(&span)).count();
            assert_eq!(entered, room, "{text_bytes}");
            assert_eq!(queue.waiting_spans(), room);
            assert_eq!(queue.dropped_full.load(Ordering::Relaxed), 3);
            queue.leave(room, room * heap_bytes(&span));
            assert!(queue.enter(&span));
        }
    }
}
