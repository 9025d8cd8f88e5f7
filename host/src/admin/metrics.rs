//! The metrics of `/metrics`, in the OpenMetrics text format.

use crate::ledger::Kind;
use crate::ledger::accounts::{Observer, Survey};
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

/// Registers what is measured of one host, in a program's own registry: everything that the admin listener's `/metrics`
/// has, under the same names, which begin with `millpond_`.
///
/// Without a watch, what only a watch sees is left out: what the process, its allocator and the kernel hold, and what
/// no ledger explains. Those are figures of the whole process, so the program's own memory is in them.
///
/// The registry keeps the host alive. To register one host again costs nothing more; two hosts in one registry need a
/// sub-registry each, with a label to tell them apart.
///
/// ```
/// use millpond::admin::register_metrics;
/// use millpond::store::Folder;
/// use millpond::{Config, Limits, Millpond, Source};
/// use prometheus_client::encoding::text::encode;
/// use prometheus_client::registry::Registry;
///
/// let folder = Folder::open("../examples/media".as_ref())?;
/// let config = Config::default();
/// let millpond = Millpond::new(&Source::embedded(), folder, &config, Limits::default())?;
/// let mut registry = Registry::default();
/// register_metrics(&mut registry, &millpond, None);
/// let mut text = String::new();
/// encode(&mut text, &registry)?;
/// assert!(text.contains("millpond_requests_total{end=\"completed\"} 0"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn register_metrics(registry: &mut Registry, millpond: &Millpond, watch: Option<&Watch>) {
    let registry = registry.sub_registry_with_prefix("millpond");
    let ended = millpond.ended_metrics();
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
    registry.register_collector(Box::new(Now {
        millpond: millpond.clone(),
        watch: watch.cloned(),
    }));
}

/// What [`encode`] makes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry as text.
pub(super) fn encode(registry: &Registry) -> Result<String, fmt::Error> {
    let mut encoded = String::new();
    text::encode(&mut encoded, registry)?;
    Ok(encoded)
}

/// What is measured when a request ends: of one host once, however many registries have it.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
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
    watch: Option<Watch>,
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let accounts = self.millpond.accounts();
        let seen = self.watch.as_ref().map(Watch::last);
        let survey = match &seen {
            Some(seen) => seen.survey.clone(),
            None => accounts.survey(),
        };
        let total = survey.total();
        labelled(
            &mut encoder,
            "requests",
            "Requests that have ended, by how",
            None,
            End::ALL.map(|end| ("end", end.name(), ConstCounter::new(accounts.ended(end)))),
        )?;
        let reused = ConstCounter::new(accounts.reused());
        let metric = encoder.encode_descriptor(
            "requests_reused",
            "Requests that an earlier answer was given to again, without an instance",
            None,
            reused.metric_type(),
        )?;
        reused.encode(metric)?;
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
                ("what", "requests", gauge(survey.live_requests)),
                ("what", "connections", gauge(survey.live_connections)),
                ("what", "stores", gauge(accounts.stores())),
                ("what", "bodies", gauge(accounts.bodies())),
                ("what", "files", gauge(accounts.files())),
            ],
        )?;
        let mut figures = self.figures(&survey);
        if let Some(seen) = &seen {
            figures.extend(seen_figures(seen));
        }
        for (name, help, unit, value) in figures {
            let unit = unit.then_some(&Unit::Bytes);
            let value = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, unit, value.metric_type())?;
            value.encode(metric)?;
        }
        Ok(())
    }
}

/// Name, help, whether it is bytes, and value.
type Figure = (&'static str, &'static str, bool, i64);

impl Now {
    /// What the host knows of itself.
    fn figures(&self, survey: &Survey) -> Vec<Figure> {
        let budget = self.millpond.budget();
        vec![
            (
                "bound",
                "What the process and the kernel on its behalf never pass",
                true,
                wide(self.millpond.bound().bound_bytes),
            ),
            (
                "budget_reserved",
                "What answers in progress have reserved",
                true,
                wide(budget.reserved_bytes()),
            ),
            (
                "budget",
                "What answers in progress may reserve",
                true,
                wide(budget.total_bytes()),
            ),
            (
                "kept",
                "What is kept between requests: open files and answers",
                true,
                wide(self.millpond.kept_bytes()),
            ),
            (
                "queue",
                "Requests that wait for room",
                false,
                wide(budget.waiting()),
            ),
            (
                "unreturned",
                "What is held for requests that have ended",
                true,
                wide(survey.unreturned.total()),
            ),
        ]
    }
}

/// What the watch knows of the process.
fn seen_figures(seen: &Sighting) -> [Figure; 7] {
    let process = &seen.process;
    let heap = seen.heap.unwrap_or_default();
    [
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
            wide(seen.socket_bytes),
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

/// As a gauge has it.
fn wide(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn gauge(value: usize) -> ConstGauge<i64> {
    ConstGauge::new(wide(value))
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
