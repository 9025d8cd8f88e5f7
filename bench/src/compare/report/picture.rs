//! The picture: for each row, the throughput of each server in times nginx's, on a scale of powers.

use super::{Report, RowReport};
use crate::compare::peers::Series;
use crate::spread::Spread;
use svg::Document;
use svg::node::element::{Circle, Group, Line, Rectangle, Style, Text, Title};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 210.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 112.0;
const BOTTOM: f64 = 44.0;
/// Height of a row's line for each server, and of the room between rows.
const LINE: f64 = 11.0;
const GAP: f64 = 12.0;
const LEGEND_LINE: f64 = 22.0;
const LEGEND_COLUMNS: usize = 4;

/// The picture follows the reader's light or dark setting. The colours can be told apart by the colour-blind too, on
/// either ground.
const STYLE: &str = "
text { font: 14px system-ui, sans-serif; fill: #24292f; }
.title { font-size: 18px; font-weight: 600; }
.small { font-size: 12px; fill: #57606a; }
.ground { fill: #ffffff; }
.band { fill: #f3f5f8; }
.grid { stroke: #d0d7de; stroke-width: 1; }
.one { stroke: #57606a; stroke-width: 1.5; }
.spread { stroke-width: 2; }
.millpond { fill: #0072b2; stroke: #0072b2; }
.millpond-fresh { fill: #56b4e9; stroke: #56b4e9; }
.nginx { fill: #57606a; stroke: #57606a; }
.caddy { fill: #cc79a7; stroke: #cc79a7; }
.static-web-server { fill: #009e73; stroke: #009e73; }
.wasmtime { fill: #b8860b; stroke: #b8860b; }
.express { fill: #d55e00; stroke: #d55e00; }
.bare { fill: none; stroke: #24292f; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.small { fill: #9198a1; }
.ground { fill: #0d1117; }
.band { fill: #161b22; }
.grid { stroke: #30363d; }
.one { stroke: #9198a1; }
.millpond { fill: #3d9be0; stroke: #3d9be0; }
.millpond-fresh { fill: #a5d8ff; stroke: #a5d8ff; }
.nginx { fill: #9198a1; stroke: #9198a1; }
.wasmtime { fill: #e69f00; stroke: #e69f00; }
.bare { stroke: #e6edf3; }
}
";

/// Draws a run. Without nginx there is nothing to compare with, and the picture says so.
pub(super) fn draw(report: &Report) -> String {
    let series = report.series();
    let rows: Vec<&RowReport> = report.rows(true).collect();
    let row_height = LINE * series.len() as f64 + GAP;
    let height = TOP + row_height * rows.len() as f64 + BOTTOM;
    let scale = Scale::of(&rows, &series);
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("role", "img")
        .add(Title::new("Throughput in times nginx's"))
        .add(Style::new(STYLE))
        .add(rectangle("ground", 0.0, 0.0, WIDTH, height))
        .add(text(
            "title",
            16.0,
            28.0,
            "start",
            "Throughput in times nginx's, one core each",
        ))
        .add(legend(&series));
    if !series.contains(&Series::Nginx) {
        let message = "nginx was not measured: there is nothing to compare with";
        return document
            .add(text("small", 16.0, TOP, "start", message))
            .to_string();
    }
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + row_height * number as f64;
        if number % 2 == 0 {
            document = document.add(rectangle("band", 0.0, top, WIDTH, row_height));
        }
        document = document.add(text(
            "",
            16.0,
            top + row_height / 2.0 + 5.0,
            "start",
            row.row.title,
        ));
    }
    let bottom = height - BOTTOM;
    for tick in scale.ticks() {
        let x = scale.x(tick);
        let class = if tick == 1.0 { "one" } else { "grid" };
        document = document.add(line(class, (x, TOP), (x, bottom))).add(text(
            "small",
            x,
            bottom + 18.0,
            "middle",
            &times(tick),
        ));
    }
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + row_height * number as f64 + (GAP + LINE) / 2.0;
        for (position, series) in series.iter().enumerate() {
            if let Some(spread) = row.times_nginx(*series) {
                document =
                    document.add(mark(&scale, *series, spread, top + LINE * position as f64));
            }
        }
    }
    format!("{document}\n")
}

/// From left to right as many powers of two as the ratios need.
struct Scale {
    least: f64,
    most: f64,
}

impl Scale {
    fn of(rows: &[&RowReport], series: &[Series]) -> Self {
        let spreads = rows
            .iter()
            .flat_map(|row| series.iter().filter_map(|series| row.times_nginx(*series)));
        let (least, most) = spreads.fold((0.5, 2.0), |(least, most): (f64, f64), spread| {
            (least.min(spread.least), most.max(spread.most))
        });
        Scale {
            least: least.log2().floor(),
            most: most.log2().ceil(),
        }
    }

    fn x(&self, ratio: f64) -> f64 {
        let share = (ratio.log2() - self.least) / (self.most - self.least);
        let x = LEFT + share * (WIDTH - LEFT - RIGHT);
        (x * 10.0).round() / 10.0
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        // Between -20 and 20: a ratio is no more than a million.
        (self.least as i32..=self.most as i32).map(|power| 2f64.powi(power))
    }
}

/// A power of two as it is read at a glance: `2×`, `1/64`.
fn times(tick: f64) -> String {
    if tick < 1.0 {
        format!("1/{}", tick.recip())
    } else {
        format!("{tick}×")
    }
}

/// A median as a dot, its least and most as a line.
fn mark(scale: &Scale, series: Series, spread: Spread, y: f64) -> Group {
    let class = class(series);
    let label = format!("{}: {:.2}", series.name(), spread.median);
    Group::new()
        .add(Title::new(label))
        .add(line(
            &format!("spread {class}"),
            (scale.x(spread.least), y),
            (scale.x(spread.most), y),
        ))
        .add(dot(class, scale.x(spread.median), y))
}

fn legend(series: &[Series]) -> Group {
    let width = (WIDTH - 16.0) / LEGEND_COLUMNS as f64;
    let mut legend = Group::new();
    for (position, series) in series.iter().enumerate() {
        let x = 22.0 + width * (position % LEGEND_COLUMNS) as f64;
        let y = 56.0 + LEGEND_LINE * (position / LEGEND_COLUMNS) as f64;
        legend = legend.add(dot(class(*series), x, y - 5.0)).add(text(
            "",
            x + 12.0,
            y,
            "start",
            series.name(),
        ));
    }
    legend
}

fn class(series: Series) -> &'static str {
    match series {
        Series::Millpond => "millpond",
        Series::MillpondFresh => "millpond-fresh",
        Series::Nginx => "nginx",
        Series::Caddy => "caddy",
        Series::StaticWebServer => "static-web-server",
        Series::Wasmtime => "wasmtime",
        Series::Express => "express",
        Series::Bare => "bare",
    }
}

fn text(class: &str, x: f64, y: f64, anchor: &str, content: &str) -> Text {
    Text::new(content)
        .set("class", class)
        .set("x", x)
        .set("y", y)
        .set("text-anchor", anchor)
}

fn rectangle(class: &str, x: f64, y: f64, width: f64, height: f64) -> Rectangle {
    Rectangle::new()
        .set("class", class)
        .set("x", x)
        .set("y", y)
        .set("width", width)
        .set("height", height)
}

fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> Line {
    Line::new()
        .set("class", class)
        .set("x1", x1)
        .set("y1", y1)
        .set("x2", x2)
        .set("y2", y2)
}

fn dot(class: &str, x: f64, y: f64) -> Circle {
    Circle::new()
        .set("class", class)
        .set("cx", x)
        .set("cy", y)
        .set("r", 4)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::compare::report::tests::report;

    #[test]
    fn every_server_is_named_and_every_row_is() {
        let svg = draw(&report());
        for label in [
            "millpond",
            "nginx",
            "Express",
            "4 KB",
            "1×",
            "millpond: 2.00",
        ] {
            assert!(svg.contains(label), "{label}");
        }
        // Latencies are no throughputs.
        assert!(!svg.contains("1,000 a second"));
    }

    #[test]
    fn ticks_are_read_at_a_glance() {
        let ticks = [1.0 / 128.0, 0.5, 1.0, 4.0].map(times);
        assert_eq!(ticks, ["1/128", "1/2", "1×", "4×"]);
    }

    #[test]
    fn without_nginx_the_picture_says_so() {
        let mut report = report();
        for row in &mut report.rows {
            row.measured
                .retain(|measured| measured.series != Series::Nginx);
        }
        assert!(draw(&report).contains("nginx was not measured"));
    }

    #[test]
    fn the_scale_goes_as_far_as_the_ratios() {
        let report = report();
        let rows: Vec<_> = report.rows(true).collect();
        let scale = Scale::of(&rows, &report.series());
        // Express has a tenth of nginx, millpond in one round somewhat more than twice as much.
        assert_eq!((scale.least, scale.most), (-4.0, 2.0));
        assert_eq!((scale.x(0.0625), scale.x(4.0)), (LEFT, WIDTH - RIGHT));
    }
}
