//! Export of spans, with a line of the log when it begins to fail and when it works again.

use super::queue::{SpanQueue, heap_bytes};
use opentelemetry_otlp::SpanExporter as OtlpExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whether the collector takes spans, for the log.
#[derive(Debug, Default)]
pub(super) struct CollectorStatus {
    state: Mutex<ExportState>,
}

#[derive(Debug, Default)]
struct ExportState {
    /// Error of the last request that got no response.
    error: Option<String>,
    is_failing: bool,
}

impl CollectorStatus {
    /// Keeps the error of a request that got no response, for the log.
    pub(super) fn note(&self, error: &impl fmt::Display) {
        self.state.lock().error = Some(error.to_string());
    }

    /// Logs the result of an export, if the one before it was another. Returns whether it logged.
    fn report(&self, result: &OTelSdkResult) -> bool {
        let mut state = self.state.lock();
        let error = state.error.take();
        let is_failing = result.is_err();
        if std::mem::replace(&mut state.is_failing, is_failing) == is_failing {
            return false;
        }
        drop(state);
        match result {
            Err(of_exporter) => {
                let error = error.unwrap_or_else(|| of_exporter.to_string());
                tracing::warn!(%error, "the collector does not take traces: they are dropped until it does");
            }
            Ok(()) => tracing::info!("the collector takes traces again"),
        }
        true
    }
}

/// Exporter that keeps the counts of the queue, and reports failures.
#[derive(Debug)]
pub(super) struct MonitoredExporter {
    pub(super) exporter: OtlpExporter,
    pub(super) queue: Arc<SpanQueue>,
    pub(super) status: Arc<CollectorStatus>,
}

impl SpanExporter for MonitoredExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (spans, bytes) = (batch.len(), batch.iter().map(heap_bytes).sum());
        let result = self.exporter.export(batch).await;
        self.queue.leave(spans, bytes);
        if result.is_err() {
            self.queue.drop_failed(spans);
        }
        self.status.report(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_sdk::error::OTelSdkError;

    #[test]
    fn a_failure_is_logged_once_and_so_is_its_end() {
        let status = CollectorStatus::default();
        let failure = || Err(OTelSdkError::InternalFailure("refused".into()));
        let results = [Ok(()), failure(), failure(), Ok(()), Ok(()), failure()];
        let logged = results.iter().map(|result| status.report(result));
        assert_eq!(
            logged.collect::<Vec<_>>(),
            [false, true, false, true, false, true]
        );
    }
}
