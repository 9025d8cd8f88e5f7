//! The metrics of `/metrics`, in the OpenMetrics text format.

use crate::ledger::Kind;
use crate::ledger::accounts::Observer;
use crate::ledger::record::End;
use crate::request::Millpond;
use crate::watch::{Sighting, Watch};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::time::Duration;

/// What [`Metrics::encode`] makes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is measured of one host.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub(super) fn new(millpond: &Millpond, watch: &Watch) -> Self {
        let mut registry = Registry::with_prefix("millpond");
        let ended = Ended::default();
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to its end",
            Unit::Seconds,
            ended.duration.clone(),
        );
        registry.register_with_unit(
            "request_peak",
            "The most that a request held at one time",
            Unit::Bytes,
            ended.peak.clone(),
        );
        millpond.accounts().observe(ended);
        registry.register_collector(Box::new(Now {
            millpond: millpond.clone(),
            watch: watch.clone(),
        }));
        Metrics { registry }
    }

    pub(super) fn encode(&self) -> Result<String, fmt::Error> {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.registry)?;
        Ok(encoded)
    }
}

/// What is measured when a request ends.
#[derive(Debug, Clone)]
struct Ended {
    duration: Family<EndLabel, Histogram>,
    peak: Family<EndLabel, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabel {
    end: &'static str,
}

impl Default for Ended {
    fn default() -> Self {
        Ended {
            // From 50 microseconds to 50 minutes, and from 4 KiB to 256 MiB.
            duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_05, 4.0, 14))
            }),
            peak: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(4096.0, 4.0, 9))
            }),
        }
    }
}

impl Observer for Ended {
    fn ended(&self, end: End, duration: Duration, peak_bytes: usize) {
        let label = EndLabel { end: end.name() };
        self.duration
            .get_or_create(&label)
            .observe(duration.as_secs_f64());
        self.peak.get_or_create(&label).observe(peak_bytes as f64);
    }
}

/// What is read off when somebody asks.
#[derive(Debug)]
struct Now {
    millpond: Millpond,
    watch: Watch,
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let accounts = self.millpond.accounts();
        let seen = self.watch.last();
        let total = seen.survey.total();
        labelled(
            &mut encoder,
            "requests",
            "Requests that have ended, by how",
            None,
            End::ALL.map(|end| ("end", end.name(), ConstCounter::new(accounts.ended(end)))),
        )?;
        labelled(
            &mut encoder,
            "ledger",
            "What requests and connections hold, by kind",
            Some(&Unit::Bytes),
            Kind::ALL.map(|kind| ("kind", kind.name(), gauge(total.of(kind)))),
        )?;
        labelled(
            &mut encoder,
            "live",
            "What is alive now",
            None,
            [
                ("what", "requests", gauge(seen.survey.live_requests)),
                ("what", "connections", gauge(seen.survey.live_connections)),
                ("what", "stores", gauge(accounts.stores())),
                ("what", "bodies", gauge(accounts.bodies())),
                ("what", "files", gauge(accounts.files())),
            ],
        )?;
        for (name, help, unit, value) in self.figures(&seen) {
            let unit = unit.then_some(&Unit::Bytes);
            let value = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, unit, value.metric_type())?;
            value.encode(metric)?;
        }
        Ok(())
    }
}

impl Now {
    /// Name, help, whether it is bytes, and value.
    fn figures(&self, seen: &Sighting) -> Vec<(&'static str, &'static str, bool, i64)> {
        let budget = self.millpond.budget();
        let process = &seen.process;
        let heap = seen.heap.unwrap_or_default();
        let bytes = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let wide = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        vec![
            (
                "bound",
                "What the process and the kernel on its behalf never pass",
                true,
                bytes(self.millpond.bound().bound_bytes),
            ),
            (
                "budget_reserved",
                "What answers in progress have reserved",
                true,
                bytes(budget.reserved_bytes()),
            ),
            (
                "budget",
                "What answers in progress may reserve",
                true,
                bytes(budget.total_bytes()),
            ),
            (
                "queue",
                "Requests that wait for room",
                false,
                bytes(budget.waiting()),
            ),
            (
                "process_anonymous",
                "Resident memory that is the process's own",
                true,
                wide(process.anonymous_bytes),
            ),
            (
                "process_file",
                "Resident pages of files",
                true,
                wide(process.file_bytes),
            ),
            (
                "heap_allocated",
                "What the allocator has given out",
                true,
                wide(heap.allocated_bytes),
            ),
            (
                "heap_resident",
                "What the allocator has in memory",
                true,
                wide(heap.resident_bytes),
            ),
            (
                "sockets",
                "What the kernel holds for open connections",
                true,
                bytes(seen.socket_bytes),
            ),
            (
                "unreturned",
                "What is held for requests that have ended",
                true,
                bytes(seen.survey.unreturned.total()),
            ),
            (
                "unexplained",
                "What the allocator has given out and no ledger explains",
                true,
                seen.unexplained_bytes,
            ),
            (
                "unexplained_slope_bytes_per_minute",
                "How fast what is unexplained grows",
                false,
                seen.trend.slope_bytes_per_minute,
            ),
        ]
    }
}

fn gauge(value: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn labelled<const N: usize, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metrics: [(&'static str, &'static str, M); N],
) -> Result<(), fmt::Error> {
    let Some((_, _, first)) = metrics.first() else {
        return Ok(());
    };
    let mut encoder = encoder.encode_descriptor(name, help, unit, first.metric_type())?;
    for (label, value, metric) in &metrics {
        metric.encode(encoder.encode_family(&[(*label, *value)])?)?;
    }
    Ok(())
}
