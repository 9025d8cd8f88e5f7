//! Metrics of an origin and its cache.

use crate::store::OriginStore;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// Registers the metrics of an origin and its cache on disk: `millpond_origin_*` and `millpond_disk_cache_*`.
pub fn register_metrics(registry: &mut Registry, store: &OriginStore) {
    registry.register_collector(Box::new(OriginCollector(store.clone())));
}

#[derive(Debug)]
struct OriginCollector(OriginStore);

impl Collector for OriginCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = self.0.figures();
        let usage = figures.usage;
        let bytes = Some(&Unit::Bytes);
        for (name, help, unit, value) in [
            (
                "millpond_disk_cache_size",
                "Bytes of the cache on disk.",
                bytes,
                usage.bytes,
            ),
            (
                "millpond_disk_cache_max_size",
                "Maximum bytes of the cache on disk.",
                bytes,
                usage.max_bytes,
            ),
            (
                "millpond_disk_cache_objects",
                "Objects in the cache on disk.",
                None,
                usage.objects as u64,
            ),
            (
                "millpond_origin_fills_in_progress",
                "Fetches of missing chunks from the origin in progress.",
                None,
                figures.fills_in_progress as u64,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric_type = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, unit, metric_type)?)?;
        }
        for (name, help, unit, value) in [
            (
                "millpond_origin_requests",
                "Requests to the origin.",
                None,
                figures.origin_requests,
            ),
            (
                "millpond_origin_received",
                "Bytes of content that the origin sent.",
                bytes,
                figures.origin_bytes,
            ),
            (
                "millpond_origin_lookups_failed",
                "Requests for metadata that the origin failed.",
                None,
                figures.lookups_failed,
            ),
            (
                "millpond_origin_fills",
                "Fetches of missing chunks from the origin.",
                None,
                figures.fills_started,
            ),
            (
                "millpond_origin_fills_failed",
                "Fetches of missing chunks that failed.",
                None,
                figures.fills_failed,
            ),
            (
                "millpond_origin_fills_abandoned",
                "Fetches of missing chunks that ended because no client was left.",
                None,
                figures.fills_abandoned,
            ),
        ] {
            let counter = ConstCounter::new(value);
            let metric_type = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, help, unit, metric_type)?)?;
        }
        Ok(())
    }
}
