//! Report of a run: the figures of each server, and a table of them.

use crate::machine::Machine;
use crate::replay::changes::Changed;
use crate::replay::load::Load;
use crate::replay::sample::Sample;
use crate::replay::servers::Kind;
use crate::replay::slope::{Slope, slope};
use crate::replay::tally::Tally;
use serde::Serialize;
use std::fmt::Write;

/// One replay: all that is needed to read its figures, and to draw it again.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) load: Load,
    pub(crate) files: usize,
    pub(crate) files_bytes: u64,
    pub(crate) in_flight: usize,
    pub(crate) servers: Vec<Measured>,
}

/// Figures of one server.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) server: Kind,
    pub(crate) summary: Summary,
    pub(crate) tally: Tally,
    /// Changes that were made of it meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) changed: Option<Changed>,
    pub(crate) samples: Vec<Sample>,
}

/// The figures that are judged.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) requests_per_second: f64,
    pub(crate) body_bytes_per_second: f64,
    pub(crate) peak_resident_bytes: u64,
    pub(crate) final_resident_bytes: u64,
    pub(crate) peak_socket_bytes: Option<u64>,
    pub(crate) open_files_at_start: usize,
    pub(crate) open_files_at_end: usize,
    /// Growth of anonymous memory over the second half of the load.
    pub(crate) anonymous_slope: Option<Slope>,
    /// Growth of what millpond's ledgers do not explain, over the same time.
    pub(crate) unexplained_slope: Option<Slope>,
    /// The bound that millpond promised.
    pub(crate) bound_bytes: Option<u64>,
}

impl Measured {
    /// Sums up what was seen. Of no samples, there is nothing to tell: zeros.
    pub(crate) fn new(server: Kind, load: &Load, tally: Tally, samples: Vec<Sample>) -> Self {
        let seconds = load.duration().as_secs_f64();
        let first = samples.first();
        let last = samples.last();
        let second_half = |value: fn(&Sample) -> Option<f64>| {
            let points: Vec<(f64, f64)> = samples
                .iter()
                .filter(|sample| (seconds / 2.0..=seconds).contains(&sample.at_seconds))
                .filter_map(|sample| Some((sample.at_seconds, value(sample)?)))
                .collect();
            slope(&points)
        };
        let summary = Summary {
            requests_per_second: tally.requests as f64 / seconds,
            body_bytes_per_second: tally.body_bytes as f64 / seconds,
            peak_resident_bytes: last.map_or(0, |sample| sample.process.peak_bytes),
            final_resident_bytes: last.map_or(0, |sample| sample.process.resident_bytes),
            peak_socket_bytes: samples
                .iter()
                .filter_map(|sample| sample.socket_bytes)
                .max(),
            open_files_at_start: first.map_or(0, |sample| sample.open_files),
            open_files_at_end: last.map_or(0, |sample| sample.open_files),
            anonymous_slope: second_half(|sample| Some(sample.process.anonymous_bytes as f64)),
            unexplained_slope: second_half(|sample| {
                let memory = sample.memory.as_ref()?;
                Some(memory.heap_unattributed_bytes as f64)
            }),
            bound_bytes: last.and_then(|sample| Some(sample.memory.as_ref()?.memory_limit_bytes)),
        };
        Measured {
            server,
            summary,
            tally,
            changed: None,
            samples,
        }
    }

    /// Its column of the table.
    fn column(&self) -> Vec<(&'static str, String)> {
        let Measured {
            summary,
            tally,
            changed,
            ..
        } = self;
        let count = |status: fn(u16) -> bool| {
            let counts = tally.by_status.iter().filter(|(code, _)| status(**code));
            counts.map(|(_, count)| count).sum::<u64>().to_string()
        };
        let mut column = vec![
            ("requests", tally.requests.to_string()),
            ("  status 2xx", count(|code| code / 100 == 2)),
            ("  status 4xx", count(|code| code / 100 == 4)),
            ("  other status", count(|code| !matches!(code / 100, 2 | 4))),
            ("  whole", tally.whole.to_string()),
            ("  client left", tally.left.to_string()),
            ("  client gave up", tally.gave_up.to_string()),
            ("  cut short", tally.cut_short.to_string()),
            ("  failed", tally.failed.to_string()),
            ("not sent", tally.not_sent.to_string()),
            ("stopped at the end", tally.stopped.to_string()),
            (
                "requests a second",
                format!("{:.1}", summary.requests_per_second),
            ),
            (
                "body MB a second",
                format!("{:.1}", summary.body_bytes_per_second / MB),
            ),
            ("peak resident MB", megabytes(summary.peak_resident_bytes)),
            (
                "resident MB after rest",
                megabytes(summary.final_resident_bytes),
            ),
            (
                "peak kernel socket MB",
                summary.peak_socket_bytes.map_or_else(dash, megabytes),
            ),
            (
                "open files at start",
                summary.open_files_at_start.to_string(),
            ),
            (
                "open files after rest",
                summary.open_files_at_end.to_string(),
            ),
            (
                "anonymous KB a minute",
                summary.anonymous_slope.map_or_else(dash, kilobytes),
            ),
            (
                "unexplained KB a minute",
                summary.unexplained_slope.map_or_else(dash, kilobytes),
            ),
            ("bound MB", summary.bound_bytes.map_or_else(dash, megabytes)),
        ];
        if let Some(changed) = changed {
            let failed: u64 = changed.failures.values().sum();
            let rows = [
                ("reloads", changed.reloads),
                ("  of the component", changed.components),
                ("signals", changed.signals),
                ("uploads", changed.uploads),
                ("uploads that were cut", changed.cut_uploads),
                ("pages read", changed.reads),
                ("batches of spans", changed.batches),
                ("changes that failed", failed),
            ];
            column.extend(rows.map(|(name, count)| (name, count.to_string())));
        }
        column
    }
}

impl Report {
    /// The table: a column for each server.
    pub(crate) fn table(&self) -> String {
        let columns: Vec<_> = self.servers.iter().map(Measured::column).collect();
        let mut table = format!("{:24}", "");
        for measured in &self.servers {
            let _ = write!(table, "{:>20}", measured.server.name());
        }
        table.push('\n');
        for (row, (label, _)) in columns.first().into_iter().flatten().enumerate() {
            let _ = write!(table, "{label:24}");
            for column in &columns {
                let _ = write!(table, "{:>20}", column[row].1);
            }
            table.push('\n');
        }
        table
    }
}

/// A megabyte here is a million bytes, as in the report that the load comes from.
pub(crate) const MB: f64 = 1e6;

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MB)
}

fn kilobytes(slope: Slope) -> String {
    format!("{:.0} ± {:.0}", slope.per_minute / 1e3, slope.error / 1e3)
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::process::ProcessMemory;
    use crate::replay::load::Shares;
    use crate::replay::memory::{Ledger, Memory};

    fn measured(server: Kind, load: &Load, megabytes: u64, memory: Option<Memory>) -> Measured {
        let samples = (0..40).map(|i| {
            let bytes = megabytes * 1_000_000 + i * 10_000;
            Sample {
                at_seconds: i as f64 / 4.0,
                process: ProcessMemory {
                    anonymous_bytes: bytes,
                    file_bytes: bytes,
                    resident_bytes: 2 * bytes,
                    peak_bytes: 2 * bytes,
                },
                open_files: 20,
                socket_bytes: Some(bytes / 2),
                memory: memory.clone(),
            }
        });
        Measured::new(server, load, Tally::default(), samples.collect())
    }

    /// Ten seconds, eight of them under load, of two servers whose memory grows by 10 KB a look.
    pub(crate) fn report(bound_bytes: u64) -> Report {
        let load = Load {
            seconds: 8,
            speed: 60.0,
            seed: 1,
            shares: Shares {
                disconnects: 0.2,
                ranges: 0.1,
                missing: 0.1,
                slow_readers: 0.05,
            },
        };
        let memory = Memory {
            memory_limit_bytes: bound_bytes,
            ledger: Ledger {
                total_bytes: 3_000_000,
                ..Ledger::default()
            },
            ..Memory::default()
        };
        let servers = vec![
            measured(Kind::Millpond, &load, 10, Some(memory)),
            measured(Kind::Express, &load, 60, None),
        ];
        Report {
            machine: Machine {
                cpu: String::new(),
                cores: 1,
                memory_bytes: 0,
                kernel: String::new(),
                node: String::new(),
                millpond: String::new(),
            },
            load,
            files: 1,
            files_bytes: 1,
            in_flight: 1,
            servers,
        }
    }

    #[test]
    fn the_slope_is_that_of_the_second_half_of_the_load() {
        let mut report = report(0);
        let measured = report.servers.pop().unwrap();
        let mut samples = measured.samples;
        for sample in &mut samples {
            // Start and rest are not what is judged.
            if !(4.0..=8.0).contains(&sample.at_seconds) {
                sample.process.anonymous_bytes = 0;
            }
        }
        let again = Measured::new(Kind::Express, &report.load, Tally::default(), samples);
        let slope = again.summary.anonymous_slope.unwrap();
        assert!(
            (slope.per_minute - 4.0 * 60.0 * 10_000.0).abs() < 1.0,
            "{slope:?}"
        );
        assert_eq!(again.summary.unexplained_slope, None);
    }

    #[test]
    fn the_table_has_a_column_for_each_server() {
        let table = report(9_000_000).table();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|row| row.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0], ["millpond", "express"]);
        assert_eq!(rows.last().unwrap(), &["bound", "MB", "9.0", "-"]);
        let width = |row: &str| row.chars().count();
        let first = table.lines().map(width).next();
        assert!(
            table.lines().all(|row| Some(width(row)) == first),
            "{table}"
        );
    }
}
