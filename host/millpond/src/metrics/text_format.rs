//! Text formats of metrics: OpenMetrics, and the older format of Prometheus that every tool reads.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::fmt;

/// Text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// OpenMetrics 1.0 (<https://openmetrics.io>).
    OpenMetrics,
    /// Text format 0.0.4 of Prometheus
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).
    Prometheus,
}

impl TextFormat {
    /// Returns the format for a request with this `Accept`: OpenMetrics where it is asked for, and not less than text.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let (mut open_metrics, mut plain) = (0.0, 0.0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parameters = range.split(';').map(str::trim);
            let media_type = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parameters.find_map(|parameter| {
                let (name, value) = parameter.split_once('=')?;
                name.trim()
                    .eq_ignore_ascii_case("q")
                    .then_some(value.trim())
            });
            // A range without a quality has the highest (RFC 9110 section 12.4.2). A malformed one does not count.
            let quality = quality.map_or(1.0, |value| value.parse::<f32>().unwrap_or(0.0));
            match media_type.as_str() {
                "application/openmetrics-text" => open_metrics = quality.max(open_metrics),
                "text/plain" => plain = quality.max(plain),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= plain {
            TextFormat::OpenMetrics
        } else {
            TextFormat::Prometheus
        }
    }

    /// Media type of the text that [`encode`] returns.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            TextFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            TextFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Returns the metrics of a registry as text.
///
/// # Errors
/// An error of `prometheus_client`, which does not occur for the metrics of this module.
pub fn encode(registry: &Registry, format: TextFormat) -> Result<String, fmt::Error> {
    let mut open_metrics = String::new();
    text::encode(&mut open_metrics, registry)?;
    Ok(match format {
        TextFormat::OpenMetrics => open_metrics,
        TextFormat::Prometheus => to_prometheus(&open_metrics),
    })
}

/// Converts metrics from OpenMetrics to the format of Prometheus. There the name of a counter has its suffix in HELP and
/// TYPE too, and there are no units, exemplars and end.
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // HELP comes before TYPE, which has the suffix.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
            continue;
        }
        let line = if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, metric_type) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (suffix, metric_type) = match metric_type {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" => ("", "untyped"),
                metric_type => ("", metric_type),
            };
            if let Some((_, help)) = help.take() {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            Cow::from(format!("# TYPE {name}{suffix} {metric_type}"))
        } else if line.starts_with('#') {
            continue;
        } else {
            without_exemplar(line).into()
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Returns a sample without its exemplar, which begins at the first ` # ` outside of quotation marks.
fn without_exemplar(sample: &str) -> &str {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (place, c) in sample.char_indices() {
        match c {
            _ if std::mem::take(&mut is_escaped) => {}
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted => return sample[..place].trim_end(),
            _ => {}
        }
    }
    sample
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::exemplar::CounterWithExemplar;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Unit;

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        use TextFormat::{OpenMetrics, Prometheus};
        // The last but one is from Prometheus 2, and the last from Prometheus 3.
        for (accept, expected) in [
            (None, Prometheus),
            (Some(""), Prometheus),
            (Some("*/*"), Prometheus),
            (Some("text/html,*/*;q=0.8"), Prometheus),
            (Some("application/openmetrics-text"), OpenMetrics),
            (Some("Application/OpenMetrics-Text ; Q=0.1"), OpenMetrics),
            (Some("application/openmetrics-text;q=0"), Prometheus),
            (Some("application/openmetrics-text;q=x"), Prometheus),
            (
                Some("application/openmetrics-text;q=0.5,text/plain"),
                Prometheus,
            ),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                ),
                OpenMetrics,
            ),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,\
                     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                ),
                OpenMetrics,
            ),
        ] {
            assert_eq!(TextFormat::negotiate(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn every_type_is_converted() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        counter.inc();
        registry.register("a", "Counter", counter);
        let bytes: Family<[(&str, &str); 1], Gauge> = Family::default();
        bytes.get_or_create(&[("label", r#" # \" # "#)]).set(2);
        registry.register_with_unit("b", "Gauge", Unit::Bytes, bytes);
        let histogram = Histogram::new([1.0]);
        histogram.observe(0.5);
        registry.register("c", "Histogram", histogram);
        let exemplar = CounterWithExemplar::<[(&str, &str); 1]>::default();
        exemplar.inc_by(1, Some([("trace", "x")]), None);
        registry.register("d", "Exemplar", exemplar);
        registry.register("e", "Info", Info::new([("version", "1")]));
        let expected = "\
            # HELP a_total Counter.\n# TYPE a_total counter\na_total 1\n\
            # HELP b_bytes Gauge.\n# TYPE b_bytes gauge\nb_bytes{label=\" # \\\" # \"} 2\n\
            # HELP c Histogram.\n# TYPE c histogram\nc_sum 0.5\nc_count 1\n\
            c_bucket{le=\"1.0\"} 1\nc_bucket{le=\"+Inf\"} 1\n\
            # HELP d_total Exemplar.\n# TYPE d_total counter\nd_total 1\n\
            # HELP e_info Info.\n# TYPE e_info gauge\ne_info{version=\"1\"} 1\n";
        assert_eq!(encode(&registry, TextFormat::Prometheus).unwrap(), expected);
        let open_metrics = encode(&registry, TextFormat::OpenMetrics).unwrap();
        assert!(open_metrics.ends_with("# EOF\n"), "{open_metrics}");
    }
}
