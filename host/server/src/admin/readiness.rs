//! Readiness: whether the host can serve now.

use millpond::Millpond;
use millpond::monitor::Monitor;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use tokio_util::sync::CancellationToken;

/// Readiness of one host, for `/readyz` and as a metric.
#[derive(Debug, Clone)]
pub(super) struct Readiness {
    pub(super) millpond: Millpond,
    pub(super) monitor: Monitor,
    /// Cancelled when the server stops.
    pub(super) stopping: CancellationToken,
}

impl Readiness {
    /// Returns why the host cannot serve. `None` if it can.
    pub(super) fn unready(&self) -> Option<String> {
        if self.stopping.is_cancelled() {
            return Some("shutting down".into());
        }
        if let Some(reason) = self.millpond.store_unavailable() {
            return Some(reason);
        }
        let seen = self.monitor.last();
        let held = seen.process.resident_bytes() as usize + seen.socket_bytes;
        (held > self.millpond.memory_plan().limit_bytes).then(|| "over the memory limit".into())
    }
}

impl Collector for Readiness {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ready = ConstGauge::new(i64::from(self.unready().is_none()));
        let help = "Whether the host can serve: 1, or 0 for the reason that /readyz tells.";
        let metric =
            encoder.encode_descriptor("millpond_ready", help, None, ready.metric_type())?;
        ready.encode(metric)
    }
}
