//! Which tables there are, and how their figures are written.

use super::{Measured, Report, RowReport, goals};
use crate::compare::peers::Series;
use crate::compare::scale::{Cost, Each, Stored};
use crate::spread::Spread;
use crate::table::Table;

/// The tables for a terminal.
pub(super) fn plain(report: &Report) -> String {
    let tables: Vec<String> = all(report).iter().map(Table::plain).collect();
    format!("{}\n{MARKS}\n", tables.join("\n"))
}

/// The page of results.
pub(super) fn markdown(report: &Report) -> String {
    let machine = &report.machine;
    let mut page = format!(
        "<!-- Made by `cargo xtask bench`: change that. -->\n\n# Results\n\n\
         {} cores of {}, {:.0} GB, {}; commit {}, {}. Servers on {}, load on {}; medians of {} rounds of {} s, \
         with the least and the most. [What each row means](../README.md#compare).\n\n\
         ![Throughput in times nginx's](bench.svg)\n\n",
        machine.cores,
        machine.cpu,
        machine.memory_bytes as f64 / 1e9,
        machine.kernel,
        report.commit,
        report.ended,
        cores(&report.server_cores),
        cores(&report.load_cores),
        report.rounds,
        report.seconds,
    );
    for (series, version) in versions(report) {
        page += &format!("- {}: {version}\n", series.name());
    }
    for why in &report.left_out {
        page += &format!("- {why}\n");
    }
    for table in all(report) {
        page += &format!("\n{}", table.markdown());
    }
    page += &format!("\n{MARKS}\n");
    let left_out = left_out(report);
    if !left_out.is_empty() {
        page += &format!("\nNot measured:\n\n{left_out}");
    }
    page
}

/// Legend of the marks after a figure.
const MARKS: &str = "° The server was waiting for the load, not the load for it: it may be faster than that. \
                     ! Some requests had no answer, or a wrong one; at a rate, it did not keep up. \
                     – Not measured.";

fn all(report: &Report) -> Vec<Table> {
    let throughput = of_rows(
        report,
        "Throughput, answers a second",
        "Medians.",
        true,
        &|row, series| {
            let best = row.best(series)?;
            let median = best.spread(|round| Some(round.answers_per_second))?.median;
            Some(format!("{}{}", count(median), marks(row, best)))
        },
    );
    let latency = of_rows(
        report,
        "Latency at a rate: p50, p99, p99.9",
        "From when a request was due to the end of its answer; medians of each.",
        false,
        &|row, series| {
            let best = row.best(series)?;
            let percentile = |of: fn(&crate::compare::load::Latency) -> f64| {
                let spread = best.spread(|round| Some(of(&round.latency?)))?;
                Some(duration(spread.median))
            };
            let (p50, p99, p999) = (
                percentile(|latency| latency.p50)?,
                percentile(|latency| latency.p99)?,
                percentile(|latency| latency.p999)?,
            );
            Some(format!("{p50}, {p99}, {p999}{}", marks(row, best)))
        },
    );
    let cpu = of_rows(
        report,
        "CPU seconds for a million answers",
        "Of the server's processes, in user and kernel mode; medians.",
        true,
        &|row, series| {
            let spread = row
                .best(series)?
                .spread(|round| Some(round.cpu_seconds_per_million))?;
            Some(count(spread.median))
        },
    );
    let cpu_of_bytes = of_rows(
        report,
        "CPU seconds for a gigabyte",
        "As above, for 10^9 bytes of answers, heads included; medians.",
        true,
        &|row, series| {
            let spread = row.best(series)?.spread(|round| {
                let bytes = round.answer_bytes as f64;
                (bytes > 0.0).then(|| round.cpu_seconds_per_million * 1e3 / bytes)
            })?;
            Some(format!("{:.2}", spread.median))
        },
    );
    let memory = of_rows(
        report,
        "Most memory, MB",
        "Written by the server's processes themselves, and by the kernel for their sockets, together at one moment of \
         the load; the largest of all rounds.",
        true,
        &|row, series| {
            let spread = row
                .best(series)?
                .spread(|round| Some(round.peak_held_bytes as f64))?;
            Some(format!("{:.1}", spread.most / 1e6))
        },
    );
    let tables = [
        goals::table(report),
        times_nginx(report),
        throughput,
        latency,
        cpu,
        cpu_of_bytes,
        cpu_times_nginx(report),
        memory,
        scale(report),
    ];
    tables.into_iter().flatten().collect()
}

/// How throughputs compare with nginx's; none where that was not measured.
pub(super) fn times_nginx(report: &Report) -> Option<Table> {
    if !report.series().contains(&Series::Nginx) {
        return None;
    }
    of_rows(
        report,
        "Throughput, in times nginx's",
        "Of each round the ratio to nginx in its better setting; of the ratios the median, the least and the most.",
        true,
        &|row, series| row.times_nginx(series).map(ratio),
    )
}

/// How CPU times compare with nginx's; none where that was not measured.
pub(super) fn cpu_times_nginx(report: &Report) -> Option<Table> {
    if !report.series().contains(&Series::Nginx) {
        return None;
    }
    of_rows(
        report,
        "CPU time for an answer, in times nginx's",
        "Of each round the ratio to nginx in the setting that takes least; of the ratios the median, the least and the \
         most. It holds where the load is slower than the server, too.",
        true,
        &|row, series| row.cpu_times(series, Series::Nginx).map(ratio),
    )
}

/// A column for each series and a line for each row: those with throughputs, or those with latencies.
fn of_rows(
    report: &Report,
    heading: &str,
    about: &str,
    closed: bool,
    cell: &dyn Fn(&RowReport, Series) -> Option<String>,
) -> Option<Table> {
    let series = report.series();
    let rows = report.rows(closed).map(|row| {
        let cells = series
            .iter()
            .map(|series| cell(row, *series).unwrap_or_else(nothing));
        std::iter::once(row.row.title.to_owned())
            .chain(cells)
            .collect()
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let names = series.iter().map(|series| series.name().to_owned());
    (!rows.is_empty()).then(|| Table {
        heading: heading.to_owned(),
        about: about.to_owned(),
        columns: std::iter::once(String::new()).chain(names).collect(),
        rows,
    })
}

/// Costs of servers for each connection, reader and file, a row for each figure. `None` if they were not measured.
fn scale(report: &Report) -> Option<Table> {
    let costs = &report.scale;
    let kilobytes =
        |each: Option<Each>, part: fn(&Each) -> f64| Some(format!("{:.1}", part(&each?) / 1e3));
    let milliseconds = |spread: Spread| format!("{:.1}", spread.median * 1e3);
    let few_and_many = |cost: &Cost, of: &dyn Fn(&Stored) -> String| {
        Some(format!(
            "{}, {}",
            of(cost.few_files.as_ref()?),
            of(cost.many_files.as_ref()?)
        ))
    };
    type Figure<'a> = (&'a str, &'a dyn Fn(&Cost) -> Option<String>);
    let figures: [Figure; 7] = [
        ("start to first byte, ms", &|cost| {
            cost.start_seconds.map(milliseconds)
        }),
        ("idle connection, process, KB", &|cost| {
            kilobytes(cost.idle_connection, |each| each.process_bytes)
        }),
        ("idle connection, kernel, KB", &|cost| {
            kilobytes(cost.idle_connection, |each| each.kernel_bytes)
        }),
        ("slow reader, process, KB", &|cost| {
            kilobytes(cost.slow_reader, |each| each.process_bytes)
        }),
        ("slow reader, kernel, KB", &|cost| {
            kilobytes(cost.slow_reader, |each| each.kernel_bytes)
        }),
        ("start with few files, with many, ms", &|cost| {
            few_and_many(cost, &|stored| milliseconds(stored.start_seconds))
        }),
        ("memory with few files, with many, MB", &|cost| {
            few_and_many(cost, &|stored| {
                format!("{:.1}", stored.anonymous_bytes as f64 / 1e6)
            })
        }),
    ];
    if costs.is_empty() {
        return None;
    }
    let files = |stored: fn(&Cost) -> Option<Stored>| {
        let found = costs.iter().find_map(stored);
        found.map_or_else(nothing, |stored| count(stored.files as f64))
    };
    let (few, many) = (files(|cost| cost.few_files), files(|cost| cost.many_files));
    let names = costs.iter().map(|cost| cost.series.name().to_owned());
    Some(Table {
        heading: "What grows with what".to_owned(),
        about: format!("What one more adds. Few files are {few}, many are {many}."),
        columns: std::iter::once(String::new()).chain(names).collect(),
        rows: figures
            .iter()
            .map(|(label, figure)| {
                let cells = costs
                    .iter()
                    .map(|cost| figure(cost).unwrap_or_else(nothing));
                std::iter::once((*label).to_owned()).chain(cells).collect()
            })
            .collect(),
    })
}

/// The versions of what was measured.
fn versions(report: &Report) -> Vec<(Series, &str)> {
    let mut versions: Vec<(Series, &str)> = Vec::new();
    for measured in report.rows.iter().flat_map(|row| &row.measured) {
        if !versions
            .iter()
            .any(|(series, _)| *series == measured.series)
        {
            versions.push((measured.series, &measured.version));
        }
    }
    versions
}

/// Why servers have no figures in a row, each reason once.
fn left_out(report: &Report) -> String {
    let mut lines: Vec<String> = Vec::new();
    for row in &report.rows {
        for measured in &row.measured {
            if let Some(why) = &measured.left_out {
                let why = why.lines().next().unwrap_or_default();
                let line = format!(
                    "- {} in \"{}\": {why}.\n",
                    measured.series.name(),
                    row.row.title
                );
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
    }
    lines.concat()
}

fn marks(row: &RowReport, measured: &Measured) -> String {
    /// Below that share of its cores, a server in a closed loop was not what held it up.
    const BUSY: f64 = 0.9;
    /// At a rate, so many may be under way at the end.
    const KEPT_UP: f64 = 0.999;
    let mut marks = String::new();
    let busy = measured.spread(|round| Some(round.busy));
    if row.row.load.is_closed() && busy.is_some_and(|busy| busy.median < BUSY) {
        marks.push('°');
    }
    let wrong = measured.rounds.iter().any(|round| {
        let all = (round.answers + round.failed) as f64;
        round.errors > 0 || (round.answers as f64) < all * KEPT_UP
    });
    if wrong {
        marks.push('!');
    }
    marks
}

fn cores(cores: &[usize]) -> String {
    match cores {
        [] => "all cores".to_owned(),
        [core] => format!("core {core}"),
        cores => format!(
            "cores {}",
            cores
                .iter()
                .map(usize::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

fn nothing() -> String {
    "–".to_owned()
}

/// As in `1.12 (1.08 to 1.15)`; of one round only the ratio.
pub(super) fn ratio(spread: Spread) -> String {
    let number = |value: f64| {
        if value < 0.1 {
            format!("{value:.3}")
        } else {
            format!("{value:.2}")
        }
    };
    let Spread {
        median,
        least,
        most,
    } = spread;
    if least == most {
        return number(median);
    }
    format!("{} ({} to {})", number(median), number(least), number(most))
}

/// A count to three digits or more, its thousands apart.
fn count(value: f64) -> String {
    if value < 100.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration that is given in microseconds.
fn duration(microseconds: f64) -> String {
    if microseconds < 1e3 {
        format!("{microseconds:.0} µs")
    } else if microseconds < 1e5 {
        format!("{:.1} ms", microseconds / 1e3)
    } else if microseconds < 1e6 {
        format!("{:.0} ms", microseconds / 1e3)
    } else {
        format!("{:.1} s", microseconds / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_so_that_they_can_be_read() {
        assert_eq!(count(7.25), "7.2");
        assert_eq!(count(10.0), "10");
        assert_eq!(count(172_345.4), "172,345");
        assert_eq!(count(1_000_000.0), "1,000,000");
        assert_eq!(count(999.0), "999");
        assert_eq!(duration(85.2), "85 µs");
        assert_eq!(duration(1234.0), "1.2 ms");
        assert_eq!(duration(234_000.0), "234 ms");
        assert_eq!(duration(2_340_000.0), "2.3 s");
        let spread = |median, least, most| Spread {
            median,
            least,
            most,
        };
        assert_eq!(ratio(spread(1.123, 1.0, 1.5)), "1.12 (1.00 to 1.50)");
        assert_eq!(ratio(spread(0.0213, 0.0213, 0.0213)), "0.021");
    }
}
