//! Goals of millpond, and whether a run meets them.

use super::Report;
use super::table::Table;
use super::tables::ratio;
use crate::compare::peers::Series;
use crate::compare::scale::Cost;

/// A throughput that is to be so many times another's.
struct Goal {
    row: &'static str,
    series: Series,
    than: Series,
    times: f64,
}

const fn goal(row: &'static str, series: Series, times: f64, than: Series) -> Goal {
    Goal {
        row,
        series,
        than,
        times,
    }
}

const GOALS: [Goal; 8] = [
    goal("4k", Series::Millpond, 1.1, Series::Nginx),
    goal("4k", Series::MillpondFresh, 0.6, Series::Nginx),
    goal("500k", Series::Millpond, 1.3, Series::Nginx),
    goal("500k", Series::MillpondFresh, 1.1, Series::Nginx),
    goal("50m", Series::Millpond, 1.7, Series::Nginx),
    goal("4k", Series::Millpond, 12.0, Series::Wasmtime),
    goal("500k", Series::Millpond, 4.0, Series::Wasmtime),
    goal("4k", Series::Millpond, 30.0, Series::Express),
];

/// From the process's start to the first byte of an answer, its component compiled before.
const START_SECONDS: f64 = 0.05;

/// The goals that the run has figures for; none where it has none.
pub(super) fn table(report: &Report) -> Option<Table> {
    let throughputs = GOALS.iter().filter_map(|goal| {
        let row = report.rows.iter().find(|row| row.row.name == goal.row)?;
        let measured = row.times(goal.series, goal.than)?;
        Some(vec![
            format!("{}, {}", row.row.title, goal.series.name()),
            format!("{} times {}", goal.times, goal.than.name()),
            ratio(measured),
            said(measured.median >= goal.times),
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
            "4 KB, millpond",
            "1.1 times nginx",
            "2.00 (2.00 to 2.10)",
            "met"
        ]));
        assert!(met([
            "4 KB, millpond",
            "30 times Express",
            "20.00 (20.00 to 21.00)",
            "not met"
        ]));
        assert_eq!(table.rows.len(), 2, "the others were not measured");
    }
}
