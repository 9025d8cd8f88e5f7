//! Report of a run: every figure as JSON, and tables and a picture of them.

mod goals;
mod page;
mod picture;
mod tables;

use super::measure::Figures;
use super::peers::{Peer, Series};
use super::rows::Row;
use super::scale::Cost;
use crate::machine::Machine;
use crate::spread::Spread;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// One run: all that is needed to read its figures, and to draw it again.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) commit: String,
    /// When it ended (RFC 3339).
    pub(crate) ended: String,
    pub(crate) rounds: u64,
    pub(crate) seconds: u64,
    pub(crate) server_cores: Vec<usize>,
    pub(crate) load_cores: Vec<usize>,
    /// Which servers were not to be had, and why.
    pub(crate) left_out: Vec<String>,
    pub(crate) rows: Vec<RowReport>,
    /// Costs of connections, readers and files; empty if they were not measured.
    pub(crate) scale: Vec<Cost>,
}

/// A row, and what each server did in it.
#[derive(Debug, Serialize)]
pub(crate) struct RowReport {
    pub(crate) row: Row,
    pub(crate) measured: Vec<Measured>,
}

/// Figures of one server in a row.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) series: Series,
    pub(crate) setting: String,
    pub(crate) version: String,
    /// Why it has no figures in this row.
    pub(crate) left_out: Option<String>,
    pub(crate) rounds: Vec<Figures>,
}

impl Measured {
    pub(crate) fn new(peer: &dyn Peer) -> Self {
        Measured {
            series: peer.series(),
            setting: peer.setting().to_owned(),
            version: peer.version().to_owned(),
            left_out: None,
            rounds: Vec::new(),
        }
    }

    /// One of the figures, over all rounds.
    fn spread(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(figure))
    }

    /// The throughput of each round.
    fn throughputs(&self) -> Vec<f64> {
        self.rounds
            .iter()
            .map(|round| round.answers_per_second)
            .collect()
    }

    /// How good it is in this row: its throughput, or, at a rate, how short its latency is.
    fn merit(&self, row: &Row) -> Option<f64> {
        let merit = self.spread(|round| {
            if row.load.is_closed() {
                Some(round.answers_per_second)
            } else {
                Some(-round.latency?.p99)
            }
        });
        Some(merit?.median)
    }
}

impl RowReport {
    /// The settings of a series that have figures.
    fn settings(&self, series: Series) -> impl Iterator<Item = &Measured> {
        let measured = self.measured.iter();
        measured.filter(move |measured| measured.series == series && measured.left_out.is_none())
    }

    /// A series in its better setting; none where it has no figures.
    fn best(&self, series: Series) -> Option<&Measured> {
        let merits = self
            .settings(series)
            .filter_map(|measured| Some((measured.merit(&self.row)?, measured)));
        let best = merits.max_by(|(one, _), (other, _)| one.total_cmp(other));
        best.map(|(_, measured)| measured)
    }

    /// The throughput of a series in times nginx's.
    fn times_nginx(&self, series: Series) -> Option<Spread> {
        self.times(series, Series::Nginx)
    }

    /// The CPU time that a series takes for an answer in times another's, round by round. Each is in the setting that takes
    /// least.
    fn cpu_times(&self, series: Series, than: Series) -> Option<Spread> {
        let costs = |series| {
            let costs = self.settings(series).filter_map(|measured| {
                let cost = |round: &Figures| Some(round.cpu_seconds_per_million);
                let median = measured.spread(cost)?.median;
                let rounds: Vec<f64> = measured.rounds.iter().filter_map(cost).collect();
                Some((median, rounds))
            });
            let least = costs.min_by(|(one, _), (other, _)| one.total_cmp(other));
            least.map(|(_, rounds)| rounds)
        };
        Spread::of_ratios(&costs(series)?, &costs(than)?)
    }

    /// The throughput of a series in times another's, round by round, each in its better setting.
    fn times(&self, series: Series, than: Series) -> Option<Spread> {
        let than = self.best(than)?.throughputs();
        Spread::of_ratios(&self.best(series)?.throughputs(), &than)
    }
}

impl Report {
    /// The series that have figures, in the order in which they were measured.
    fn series(&self) -> Vec<Series> {
        let mut series = Vec::new();
        for measured in self.rows.iter().flat_map(|row| &row.measured) {
            if !series.contains(&measured.series) && !measured.rounds.is_empty() {
                series.push(measured.series);
            }
        }
        series
    }

    /// The rows whose figure is a throughput, or those with latencies.
    fn rows(&self, closed: bool) -> impl Iterator<Item = &RowReport> {
        self.rows
            .iter()
            .filter(move |report| report.row.load.is_closed() == closed)
    }

    /// Writes bench.json, bench.svg and README.md into a folder, and the tables to standard output.
    pub(crate) fn write(&self, out: &Path) -> Result<()> {
        let files = [
            ("bench.json", serde_json::to_string_pretty(self)? + "\n"),
            ("bench.svg", picture::draw(self)),
            ("README.md", tables::markdown(self)),
        ];
        for (name, content) in files {
            let path = out.join(name);
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("{}", path.display());
        }
        print!("{}", tables::plain(self));
        Ok(())
    }

    /// Writes the run's picture and tables into the page of the comparison.
    pub(crate) fn renew(&self, path: &Path) -> Result<()> {
        let at = || format!("cannot renew {}", path.display());
        let text = fs::read_to_string(path).with_context(at)?;
        fs::write(path, page::renewed(&text, self)?).with_context(at)
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::compare::load::Latency;
    use crate::compare::rows;

    fn figures(answers_per_second: f64) -> Figures {
        Figures {
            answers_per_second,
            answers: 1000,
            failed: 0,
            errors: 0,
            answer_bytes: 4500,
            cpu_seconds_per_million: 1e6 / answers_per_second,
            busy: 1.0,
            peak_held_bytes: 5_000_000,
            peak_anonymous_bytes: 4_000_000,
            peak_resident_bytes: 9_000_000,
            latency: Some(Latency {
                p50: 100.0,
                p99: 1e9 / answers_per_second,
                p999: 3000.0,
                most: 4000.0,
            }),
        }
    }

    fn measured(series: Series, setting: &str, throughputs: [f64; 3]) -> Measured {
        Measured {
            series,
            setting: setting.to_owned(),
            version: format!("{} 1.0", series.name()),
            left_out: None,
            rounds: throughputs.map(figures).to_vec(),
        }
    }

    /// Three rounds of one row with throughputs and of one with latencies. nginx is better with sendfile.
    pub(crate) fn report() -> Report {
        let rows = rows::all();
        let rows = rows
            .into_iter()
            .filter(|row| ["4k", "slow"].contains(&row.name));
        let rows = rows.map(|row| RowReport {
            row,
            measured: vec![
                measured(Series::Millpond, "", [200e3, 100e3, 210e3]),
                measured(Series::Nginx, "buffers", [90e3, 40e3, 80e3]),
                measured(Series::Nginx, "sendfile", [100e3, 50e3, 100e3]),
                measured(Series::Express, "", [10e3, 5e3, 10e3]),
            ],
        });
        Report {
            machine: Machine::describe(Path::new("/nonexistent")),
            commit: "0123456789ab".into(),
            ended: "2026-01-01T00:00:00Z".into(),
            rounds: 3,
            seconds: 1,
            server_cores: vec![0],
            load_cores: vec![1],
            left_out: Vec::new(),
            rows: rows.collect(),
            scale: Vec::new(),
        }
    }

    #[test]
    fn the_better_setting_counts() {
        let mut report = report();
        for row in &report.rows {
            assert_eq!(row.best(Series::Nginx).unwrap().setting, "sendfile");
            assert!(row.best(Series::Caddy).is_none());
        }
        report.rows[0].measured[2].left_out = Some("it ended".into());
        assert_eq!(
            report.rows[0].best(Series::Nginx).unwrap().setting,
            "buffers"
        );
    }

    #[test]
    fn a_ratio_is_of_each_round() {
        let report = report();
        let expected = Spread {
            median: 2.0,
            least: 2.0,
            most: 2.1,
        };
        assert_eq!(report.rows[0].times_nginx(Series::Millpond), Some(expected));
        assert_eq!(report.rows[0].times_nginx(Series::Wasmtime), None);
    }

    #[test]
    fn a_ratio_of_cpu_time_is_to_the_setting_that_takes_least() {
        let report = report();
        let expected = Spread {
            median: 0.5,
            least: 1.0 / 2.1,
            most: 0.5,
        };
        let row = &report.rows[0];
        assert_eq!(
            row.cpu_times(Series::Millpond, Series::Nginx),
            Some(expected)
        );
        assert_eq!(row.cpu_times(Series::Millpond, Series::Wasmtime), None);
    }

    #[test]
    fn the_page_has_a_column_for_each_server_and_a_row_for_each_row() {
        let page = tables::markdown(&report());
        assert!(
            page.contains("|  | millpond | nginx | Express |\n"),
            "{page}"
        );
        assert!(
            page.contains("| 4 KB | 2.00 (2.00 to 2.10) | 1.00 | 0.10 |\n"),
            "{page}"
        );
        assert!(
            page.contains("| 4 KB | 200,000 | 100,000 | 10,000 |\n"),
            "{page}"
        );
        assert!(
            page.contains("| 4 KB, 1,000 a second | 100 µs, 5.0 ms, 3.0 ms |"),
            "{page}"
        );
    }

    #[test]
    fn what_does_not_count_is_marked() {
        let mut report = report();
        let measured = &mut report.rows[0].measured;
        measured[0]
            .rounds
            .iter_mut()
            .for_each(|round| round.busy = 0.5);
        measured[3].rounds[0].failed = 10;
        measured[3].left_out = None;
        let page = tables::markdown(&report);
        assert!(
            page.contains("| 4 KB | 200,000° | 100,000 | 10,000! |\n"),
            "{page}"
        );
    }
}
