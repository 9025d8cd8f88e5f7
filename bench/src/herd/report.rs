//! The report of the herd: tables and JSON.

use super::content::Object;
use super::measure::{HerdFigures, HitFigures, MiddleFigures, RANGE_PATIENCE};
use super::servers::Cache;
use crate::machine::Machine;
use crate::spread::Spread;
use crate::table::Table;
use serde::Serialize;

/// All figures of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) commit: String,
    pub(crate) clients: usize,
    pub(crate) origin_bytes_per_second: u64,
    pub(crate) origin_latency_seconds: f64,
    /// Time of a single client without a cache, in each round.
    pub(crate) plain_download: Vec<f64>,
    pub(crate) servers: Vec<Measured>,
    /// Hits of the same objects in a local folder, by millpond.
    pub(crate) folder: Vec<HitFigures>,
    pub(crate) left_out: Vec<String>,
}

/// Figures of a cache.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    pub(crate) cache: Cache,
    pub(crate) version: String,
    /// One for each round.
    pub(crate) herd: Vec<HerdFigures>,
    pub(crate) middle: Option<MiddleFigures>,
    pub(crate) hits: Vec<HitFigures>,
}

const MB: f64 = 1e6;

impl Report {
    /// Returns the tables in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut tables = vec![self.herd_table(), self.middle_table()];
        if self.servers.iter().any(|server| !server.hits.is_empty()) {
            tables.push(self.hits_table());
        }
        let tables: Vec<String> = tables.iter().map(Table::markdown).collect();
        let mut text = tables.join("\n");
        for left_out in &self.left_out {
            text += &format!("\n- {left_out}\n");
        }
        text
    }

    fn herd_table(&self) -> Table {
        let plain = Spread::of(self.plain_download.iter().copied());
        let rows = self.servers.iter().map(|server| {
            let herd = |value: fn(&HerdFigures) -> Option<f64>| {
                Spread::of(server.herd.iter().filter_map(value))
            };
            let seconds = |value: fn(&HerdFigures) -> Option<f64>| {
                // A round that has no figure would make the others look good.
                let is_in_all = server.herd.iter().all(|figures| value(figures).is_some());
                let spread = herd(value).filter(|_| is_in_all);
                spread.map_or("–".to_owned(), |spread| format!("{:.2} s", spread.median))
            };
            vec![
                server.cache.name().to_owned(),
                whole(herd(|herd| Some(herd.origin_requests as f64))),
                whole(herd(|herd| Some(herd.origin_bytes as f64 / MB))),
                seconds(|herd| herd.first_byte_median),
                seconds(|herd| herd.first_byte_p99),
                seconds(|herd| herd.last_byte_median),
                seconds(|herd| herd.last_byte),
                seconds(|herd| Some(herd.cpu_seconds)),
                whole(herd(|herd| Some(herd.peak_resident_bytes as f64 / MB))),
                whole(herd(|herd| Some(herd.peak_anonymous_bytes as f64 / MB))),
                whole(herd(|herd| Some(herd.right as f64))),
            ]
        });
        let columns = [
            "",
            "GETs at the origin",
            "MB from the origin",
            "first byte, median",
            "first byte, 99 %",
            "last byte, median",
            "last byte, all",
            "CPU time",
            "peak resident, MB",
            "peak anonymous, MB",
            "right clients",
        ];
        Table {
            heading: format!("A herd of {} clients", self.clients),
            about: format!(
                "All request one object of 50 MB at once, and no cache has it. The origin sends {} MB a second, {} ms after \
                 a request. One client without a cache has the object after {}. Medians of {} rounds.",
                self.origin_bytes_per_second / 1_000_000,
                self.origin_latency_seconds * 1e3,
                plain.map_or("–".to_owned(), |plain| format!("{:.2} s", plain.median)),
                self.plain_download.len(),
            ),
            columns: columns.map(str::to_owned).into(),
            rows: rows.collect(),
        }
    }

    fn middle_table(&self) -> Table {
        let rows = self.servers.iter().filter_map(|server| {
            let middle = server.middle.as_ref()?;
            let answer = match middle.answer {
                None => format!("none in {} s", RANGE_PATIENCE.as_secs()),
                Some((status, seconds)) => {
                    let wrong = if middle.is_right { "" } else { ", wrong" };
                    format!("{status} after {seconds:.2} s{wrong}")
                }
            };
            Some(vec![
                server.cache.name().to_owned(),
                answer,
                middle.origin_requests.to_string(),
                format!("{:.1}", middle.origin_bytes as f64 / MB),
            ])
        });
        let columns = ["", "response", "GETs at the origin", "MB from the origin"];
        Table {
            heading: "100 bytes in the middle of 10 GB".to_owned(),
            about: "One client requests a range of an object that no cache has.".to_owned(),
            columns: columns.map(str::to_owned).into(),
            rows: rows.collect(),
        }
    }

    fn hits_table(&self) -> Table {
        let objects = [
            Object::FIFTY_MEGABYTES,
            Object::HALF_MEGABYTE,
            Object::FOUR_KILOBYTES,
        ];
        let mut columns = vec![String::new()];
        for object in objects {
            columns.push(format!("{}, responses/s", object.name));
            columns.push("CPU, µs".to_owned());
            columns.push("× folder".to_owned());
        }
        let row = |name: &str, hits: &[HitFigures]| {
            let mut row = vec![name.to_owned()];
            for object in objects {
                let of = |hits: &[HitFigures]| {
                    hits.iter().find(|hit| hit.object == object.name).cloned()
                };
                let (hit, local) = (of(hits), of(&self.folder));
                let ratio = hit.as_ref().zip(local).map(|(hit, local)| {
                    format!("{:.2}", hit.answers_per_second / local.answers_per_second)
                });
                let figure = |value: fn(&HitFigures) -> f64| {
                    hit.as_ref()
                        .map_or("–".to_owned(), |hit| format!("{:.0}", value(hit)))
                };
                let is_idle = hit.as_ref().is_some_and(|hit| hit.busy < 0.9);
                let mark = if is_idle { "°" } else { "" };
                row.push(figure(|hit| hit.answers_per_second) + mark);
                row.push(figure(|hit| hit.cpu_microseconds));
                row.push(ratio.unwrap_or_else(|| "–".to_owned()));
            }
            row
        };
        let servers = self
            .servers
            .iter()
            .map(|server| row(server.cache.name(), &server.hits));
        let folder = row("millpond, a local folder", &self.folder);
        Table {
            heading: "Hits".to_owned(),
            about: "Objects that the cache has, by `wrk`, beside the same files in a local folder."
                .to_owned(),
            columns,
            rows: servers.chain([folder]).collect(),
        }
    }
}

fn whole(spread: Option<Spread>) -> String {
    spread.map_or("–".to_owned(), |spread| format!("{:.0}", spread.median))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::herd::measure::Curves;

    pub(crate) fn report() -> Report {
        let herd = |origin_requests, last_byte| HerdFigures {
            origin_requests,
            origin_bytes: 50_000_000,
            first_byte_median: Some(0.5),
            first_byte_p99: Some(0.75),
            last_byte_median: Some(1.0),
            last_byte,
            cpu_seconds: 2.0,
            peak_resident_bytes: 30_000_000,
            peak_anonymous_bytes: 20_000_000,
            right: 2,
            failures: Default::default(),
            curves: Curves {
                requests: vec![0.01],
                sent: vec![(0.02, 25_000_000), (0.5, 25_000_000)],
                first_bytes: vec![0.5, 0.75],
                last_bytes: vec![1.0, 2.0],
            },
        };
        let measured = |cache, herd, answer| Measured {
            cache,
            version: "1".to_owned(),
            herd,
            middle: Some(MiddleFigures {
                answer,
                is_right: true,
                origin_requests: 1,
                origin_bytes: 1_048_576,
            }),
            hits: vec![HitFigures {
                object: "4k.jpg",
                answers_per_second: 500.0,
                cpu_microseconds: 7.0,
                failed: 0,
                busy: 0.95,
                origin_bytes: 0,
            }],
        };
        Report {
            machine: Machine {
                cpu: String::new(),
                cores: 2,
                memory_bytes: 0,
                kernel: String::new(),
                node: String::new(),
                millpond: String::new(),
            },
            commit: String::new(),
            clients: 2,
            origin_bytes_per_second: 100_000_000,
            origin_latency_seconds: 0.02,
            plain_download: vec![0.52, 0.54],
            servers: vec![
                measured(
                    Cache::Nginx,
                    vec![herd(1, Some(2.0)), herd(3, Some(4.0)), herd(2, Some(3.0))],
                    None,
                ),
                measured(
                    Cache::Varnish,
                    vec![herd(1, None), herd(1, Some(3.0))],
                    Some((206, 0.5)),
                ),
            ],
            folder: vec![HitFigures {
                object: "4k.jpg",
                answers_per_second: 1000.0,
                cpu_microseconds: 3.5,
                failed: 0,
                busy: 0.5,
                origin_bytes: 0,
            }],
            left_out: vec!["millpond is left out: no such option".to_owned()],
        }
    }

    #[test]
    fn tables_have_medians_and_no_time_that_a_round_lacks() {
        let text = report().markdown();
        let row = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("| {name} |")));
            line.unwrap_or_default().to_owned()
        };
        assert_eq!(
            row("nginx, lock"),
            "| nginx, lock | 2 | 50 | 0.50 s | 0.75 s | 1.00 s | 3.00 s | 2.00 s | 30 | 20 | 2 |"
        );
        assert!(row("Varnish").contains("| 1.00 s | – | 2.00 s |"));
        assert!(text.contains("has the object after 0.53 s."));
        assert!(text.contains("| nginx, lock | none in 10 s | 1 | 1.0 |"));
        assert!(text.contains("| Varnish | 206 after 0.50 s | 1 | 1.0 |"));
        assert!(text.contains("| nginx, lock | – | – | – | – | – | – | 500 | 7 | 0.50 |"));
        assert!(row("millpond, a local folder").contains("| 1000° | 4 | 1.00 |"));
        assert!(text.contains("- millpond is left out: no such option"));
    }
}
