//! Goals of millpond, and whether a run meets them.

use super::Report;
use super::tables::ratio;
use crate::compare::peers::Series;
use crate::compare::scale::Cost;
use crate::table::Table;

/// A figure that is to be so many times another server's: a throughput at least, a CPU time for an answer at most.
struct Goal {
    figure: Figure,
    row: &'static str,
    series: Series,
    than: Series,
    times: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Throughput,
    CpuTime,
}

const fn throughput(row: &'static str, series: Series, times: f64, than: Series) -> Goal {
    Goal {
        figure: Figure::Throughput,
        row,
        series,
        than,
        times,
    }
}

const fn cpu_time(row: &'static str, series: Series, times: f64) -> Goal {
    Goal {
        figure: Figure::CpuTime,
        row,
        series,
        than: Series::Nginx,
        times,
    }
}

const GOALS: [Goal; 18] = [
    throughput("4k", Series::Millpond, 1.15, Series::Nginx),
    cpu_time("4k", Series::Millpond, 0.85),
    throughput("4k", Series::MillpondFresh, 0.45, Series::Nginx),
    cpu_time("4k", Series::MillpondFresh, 2.2),
    throughput("500k", Series::Millpond, 1.0, Series::Nginx),
    cpu_time("500k", Series::Millpond, 0.9),
    throughput("50m", Series::Millpond, 1.25, Series::Nginx),
    cpu_time("50m", Series::Millpond, 0.8),
    throughput("cold", Series::Millpond, 0.6, Series::Nginx),
    throughput("tls", Series::Millpond, 1.1, Series::Nginx),
    cpu_time("tls", Series::Millpond, 0.9),
    throughput("tls-500k", Series::Millpond, 1.4, Series::Nginx),
    cpu_time("tls-500k", Series::Millpond, 0.65),
    throughput("h2", Series::Millpond, 1.0, Series::Nginx),
    cpu_time("h2", Series::Millpond, 1.0),
    throughput("4k", Series::Millpond, 12.0, Series::Wasmtime),
    throughput("500k", Series::Millpond, 4.0, Series::Wasmtime),
    throughput("4k", Series::Millpond, 30.0, Series::Express),
];

/// From the process's start to the first byte of an answer, its component compiled before.
const START_SECONDS: f64 = 0.05;

/// The goals that the run has figures for; none where it has none.
pub(super) fn table(report: &Report) -> Option<Table> {
    let throughputs = GOALS.iter().filter_map(|goal| {
        let row = report.rows.iter().find(|row| row.row.name == goal.row)?;
        let (measured, figure, is_met) = match goal.figure {
            Figure::Throughput => {
                let measured = row.times(goal.series, goal.than)?;
                (measured, "throughput", measured.median >= goal.times)
            }
            Figure::CpuTime => {
                let measured = row.cpu_times(goal.series, goal.than)?;
                (measured, "CPU time", measured.median <= goal.times)
            }
        };
        Some(vec![
            format!("{}, {}: {figure}", row.row.title, goal.series.name()),
            format!("{} times {}", goal.times, goal.than.name()),
            ratio(measured),
            said(is_met),
        ])
    });
    let is_millpond = |cost: &&Cost| cost.series == Series::Millpond;
    let started = report.scale.iter().find(is_millpond);
    let start = started.and_then(|cost| cost.start_seconds).map(|measured| {
        vec![
            "start to first byte, millpond".to_owned(),
            format!("{:.0} ms", START_SECONDS * 1e3),
            format!("{:.0} ms", measured.median * 1e3),
            said(measured.median <= START_SECONDS),
        ]
    });
    let rows: Vec<_> = throughputs.chain(start).collect();
    (!rows.is_empty()).then(|| Table {
        heading: "Goals".to_owned(),
        about: "What was aimed at before it was built, and what this run shows.".to_owned(),
        columns: ["", "aimed at", "measured", ""].map(str::to_owned).into(),
        rows,
    })
}

fn said(is_met: bool) -> String {
    if is_met { "met" } else { "not met" }.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_goal_is_met_or_not() {
        let table = table(&super::super::tests::report()).unwrap();
        let met = |cells: [&str; 4]| table.rows.contains(&cells.map(str::to_owned).into());
        assert!(met([
            "4 KB, millpond: throughput",
            "1.15 times nginx",
            "2.00 (2.00 to 2.10)",
            "met"
        ]));
        assert!(met([
            "4 KB, millpond: CPU time",
            "0.85 times nginx",
            "0.50 (0.48 to 0.50)",
            "met"
        ]));
        assert!(met([
            "4 KB, millpond: throughput",
            "30 times Express",
            "20.00 (20.00 to 21.00)",
            "not met"
        ]));
        assert_eq!(table.rows.len(), 3, "the others were not measured");
    }
}
