//! Metrics in the text formats of OpenMetrics and Prometheus. `docs/reference/metrics.md` lists them.

mod process;
mod text_format;

pub use process::register_process;
pub use text_format::{TextFormat, encode};

use crate::service::Millpond;
use millpond_ledger::monitor::{Monitor, Sample};
use millpond_ledger::{Kind, Observer, Outcome, Snapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Registers the metrics of a host in a program's registry. They are the metrics of the admin listener's `/metrics`
/// that begin with `millpond_`.
///
/// Without a `monitor`, the metrics that it samples are missing: memory of the process, the allocator and the kernel,
/// and unattributed memory. Those cover the whole process, including the program's own memory. [`register_process`]
/// adds the standard metrics of a process.
///
/// The registry keeps the host alive. A host may be in several registries. Two hosts in one registry need a
/// sub-registry each, with a label that distinguishes them.
///
/// ```
/// use millpond::metrics::{TextFormat, encode, register};
/// use millpond::store::Folder;
/// use millpond::{Config, Limits, Millpond, Source};
/// use prometheus_client::registry::Registry;
///
/// let folder = Folder::open("../../examples/media".as_ref())?;
/// let config = Config::default();
/// let millpond = Millpond::new(&Source::embedded(), folder, &config, Limits::default())?;
/// let mut registry = Registry::default();
/// register(&mut registry, &millpond, None);
/// let text = encode(&registry, TextFormat::Prometheus)?;
/// let completed = r#"millpond_requests_total{outcome="completed",method="GET",code="2xx"} 0"#;
/// assert!(text.contains(completed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn register(registry: &mut Registry, millpond: &Millpond, monitor: Option<&Monitor>) {
    let registry = registry.sub_registry_with_prefix("millpond");
    let histograms = millpond.registry().observe_once::<RequestHistograms>();
    registry.register_with_unit(
        "request_duration",
        "Time from the end of a request's head to its outcome, in seconds",
        Unit::Seconds,
        histograms.duration.clone(),
    );
    registry.register_with_unit(
        "request_peak",
        "Maximum memory that a request held at one time, in bytes",
        Unit::Bytes,
        histograms.peak.clone(),
    );
    registry.register_collector(Box::new(MillpondCollector {
        millpond: millpond.clone(),
        monitor: monitor.cloned(),
    }));
}

/// Histograms of ended requests. A host has one set, shared by all registries.
#[derive(Debug, Clone)]
struct RequestHistograms {
    duration: Family<OutcomeLabel, Histogram>,
    peak: Family<OutcomeLabel, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Default for RequestHistograms {
    fn default() -> Self {
        RequestHistograms {
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

impl Observer for RequestHistograms {
    fn on_request_end(&self, outcome: Outcome, duration: Duration, peak_bytes: usize) {
        let label = OutcomeLabel {
            outcome: outcome.name(),
        };
        self.duration
            .get_or_create(&label)
            .observe(duration.as_secs_f64());
        self.peak.get_or_create(&label).observe(peak_bytes as f64);
    }
}

/// Collector of the metrics that are read at each scrape.
#[derive(Debug)]
struct MillpondCollector {
    millpond: Millpond,
    monitor: Option<Monitor>,
}

impl Collector for MillpondCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let registry = self.millpond.registry();
        let sample = self.monitor.as_ref().map(Monitor::last);
        let snapshot = match &sample {
            Some(sample) => sample.snapshot.clone(),
            None => registry.snapshot(),
        };
        self.encode_build_info(&mut encoder)?;
        self.encode_requests(&mut encoder)?;
        self.encode_routes(&mut encoder)?;
        counter(
            &mut encoder,
            "response_body",
            "Bytes of response bodies sent.",
            Some(&Unit::Bytes),
            registry.response_body_bytes(),
        )?;
        counter(
            &mut encoder,
            "response_cache_hits",
            "Requests answered from the response cache.",
            None,
            registry.response_cache_hits(),
        )?;
        counter(
            &mut encoder,
            "response_cache_misses",
            "Requests for which the component ran.",
            None,
            registry.response_cache_misses(),
        )?;
        let total = snapshot.total();
        encode_gauge_family(
            &mut encoder,
            "ledger",
            "Memory that requests and connections hold, by kind, in bytes.",
            Some(&Unit::Bytes),
            "kind",
            Kind::ALL.map(|kind| (kind.name(), total.of(kind))),
        )?;
        let cache = self.millpond.cache_bytes();
        encode_gauge_family(
            &mut encoder,
            "cache",
            "Memory of the caches of open files and of responses, in bytes.",
            Some(&Unit::Bytes),
            "cache",
            [("files", cache.files), ("responses", cache.responses)],
        )?;
        encode_gauge_family(
            &mut encoder,
            "in_use",
            "Requests, connections, instances, response bodies and files that exist now.",
            None,
            "resource",
            [
                ("requests", snapshot.live_requests),
                ("connections", snapshot.live_connections),
                ("instances", registry.in_use().stores()),
                ("response_bodies", registry.in_use().bodies()),
                ("files", registry.in_use().files()),
            ],
        )?;
        let plan = self.millpond.memory_plan();
        encode_gauge_family(
            &mut encoder,
            "in_use_limit",
            "Maximum number of connections and of instances.",
            None,
            "resource",
            [
                ("connections", plan.connections),
                ("instances", plan.instances),
            ],
        )?;
        let mut gauges = self.gauges(&snapshot);
        if let Some(sample) = &sample {
            gauges.extend(sampled_gauges(sample));
        }
        for (name, help, unit, value) in gauges {
            let value = ConstGauge::new(value);
            let metric =
                encoder.encode_descriptor(name, help, unit.as_ref(), value.metric_type())?;
            value.encode(metric)?;
        }
        Ok(())
    }
}

/// Name, help, unit and value of a gauge.
type Gauge = (&'static str, &'static str, Option<Unit>, i64);

impl MillpondCollector {
    fn encode_build_info(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let component = self.millpond.component();
        let sha256 = component.sha256.as_str();
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("component_sha256", sha256),
        ];
        let help = "Version of millpond, and digest of the component that answers.";
        // A gauge, because the Prometheus text format has no info type.
        let (name, metric_type) = ("build_info", MetricType::Gauge);
        let mut family = encoder.encode_descriptor(name, help, None, metric_type)?;
        ConstGauge::new(1).encode(family.encode_family(&labels)?)
    }

    /// Encodes the request counters. Series of GET exist from the start, so that the first failure is an increase.
    /// Other methods follow with their first request.
    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Requests that have ended, by outcome, method and class of the status code.";
        let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for requests in self.millpond.registry().request_counts() {
            if requests.count == 0 && requests.method != "GET" {
                continue;
            }
            let labels = [
                ("outcome", requests.outcome.name()),
                ("method", requests.method),
                ("code", requests.code),
            ];
            ConstCounter::new(requests.count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Encodes the request counters by route. Routes are bounded, and so are the series.
    fn encode_routes(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Requests that have ended, by route and class of the status code.";
        let (name, metric_type) = ("route_requests", MetricType::Counter);
        let mut family = encoder.encode_descriptor(name, help, None, metric_type)?;
        for requests in self.millpond.registry().route_counts() {
            let route = label_value(&requests.route.pattern);
            let labels = [("route", &*route), ("code", requests.code)];
            ConstCounter::new(requests.count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Gauges of the host itself.
    fn gauges(&self, snapshot: &Snapshot) -> Vec<Gauge> {
        let budget = self.millpond.budget();
        vec![
            (
                "memory_limit",
                "Maximum memory of the process, including what the kernel holds for it, in bytes.",
                Some(Unit::Bytes),
                to_i64(self.millpond.memory_plan().limit_bytes),
            ),
            (
                "memory_reserved",
                "Memory that responses in progress have reserved, in bytes.",
                Some(Unit::Bytes),
                to_i64(budget.reserved_bytes()),
            ),
            (
                "memory_reservable",
                "Maximum memory that responses in progress may reserve, in bytes.",
                Some(Unit::Bytes),
                to_i64(budget.total_bytes()),
            ),
            (
                "admission_queue_length",
                "Requests that wait for memory or for an instance.",
                None,
                to_i64(budget.queue_length()),
            ),
            (
                "leaked",
                "Memory still held for requests and connections that have ended, in bytes.",
                Some(Unit::Bytes),
                to_i64(snapshot.leaked.total()),
            ),
        ]
    }
}

/// Gauges of the monitor's sample.
fn sampled_gauges(sample: &Sample) -> [Gauge; 6] {
    let process = &sample.process;
    let heap = sample.heap.unwrap_or_default();
    [
        (
            "process_anonymous",
            "Resident anonymous memory of the process, in bytes.",
            Some(Unit::Bytes),
            to_i64(process.anonymous_bytes),
        ),
        (
            "process_file",
            "Resident memory of the process that is mapped from files, in bytes.",
            Some(Unit::Bytes),
            to_i64(process.file_bytes),
        ),
        (
            "heap_allocated",
            "Memory that the program has allocated, in bytes.",
            Some(Unit::Bytes),
            to_i64(heap.allocated_bytes),
        ),
        (
            "heap_resident",
            "Resident memory of the allocator, in bytes.",
            Some(Unit::Bytes),
            to_i64(heap.resident_bytes),
        ),
        (
            "heap_unattributed",
            "Allocated memory beyond that at the start, the ledgers and the caches, in bytes.",
            Some(Unit::Bytes),
            sample.unattributed_bytes,
        ),
        (
            "sockets",
            "Memory that the kernel holds for open connections, in bytes.",
            Some(Unit::Bytes),
            to_i64(sample.socket_bytes),
        ),
    ]
}

/// Escapes a label's value, which the encoder writes as it is.
fn label_value(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return text.into();
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n").into()
}

/// Converts a value for a gauge.
fn to_i64(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> Result<(), fmt::Error> {
    let value = ConstCounter::new(value);
    value.encode(encoder.encode_descriptor(name, help, unit, value.metric_type())?)
}

/// Encodes a gauge with one label.
fn encode_gauge_family<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    label: &str,
    gauges: [(&'static str, usize); N],
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (value, number) in gauges {
        let number = ConstGauge::new(to_i64(number));
        number.encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(label_value("/media/*.gif"), "/media/*.gif");
        assert_eq!(label_value("a\"b\\c\n"), r#"a\"b\\c\n"#);
    }
}
