//! The picture of a replay: memory above, open files below, over the same seconds.

use crate::replay::report::{MB, Measured, Report};
use crate::replay::sample::Sample;
use crate::replay::servers::Kind;
use anyhow::Result;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

const SIZE: (u32, u32) = (1280, 900);
const TITLE_HEIGHT: u32 = 64;
const MEMORY_HEIGHT: u32 = 510;
const LEGEND_WIDTH: u32 = 300;
const LEGEND_LINE_HEIGHT: i32 = 24;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRAY: RGBColor = RGBColor(130, 130, 130);
const FAINT: RGBColor = RGBColor(226, 226, 226);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One line.
struct Curve {
    label: String,
    color: RGBColor,
    stroke: Stroke,
    points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Clone, Copy)]
enum Stroke {
    Solid,
    /// Lengths of a dash and of the gap after it, in pixels.
    Dashed(u32, u32),
}

/// Draws a replay into an SVG file.
pub(crate) fn draw(report: &Report, path: &Path) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (title, rest) = root.split_vertically(TITLE_HEIGHT);
    draw_title(report, &title)?;
    let (above, below) = rest.split_vertically(MEMORY_HEIGHT);
    let memory = report.servers.iter().flat_map(memory_curves).collect();
    draw_panel(report, &above, "Memory, MB", memory, &report.servers)?;
    let files = report.servers.iter().map(files_curve).collect();
    draw_panel(report, &below, "Open files", files, &[])?;
    root.present()?;
    Ok(())
}

fn draw_title(report: &Report, area: &Area) -> Result<()> {
    let load = &report.load;
    let shares = &load.shares;
    let percent = |share: f64| (share * 100.0).round();
    let first = format!(
        "{} minutes of the original's load, played in {} s",
        (load.minutes_replayed() * 10.0).round() / 10.0,
        load.seconds
    );
    let second = format!(
        "of the GETs, {} % leave early, {} % ask for a range, {} % for what is missing, {} % read slowly",
        percent(shares.disconnects),
        percent(shares.ranges),
        percent(shares.missing),
        percent(shares.slow_readers),
    );
    area.draw(&Text::new(first, (16, 14), font(22)))?;
    let changed = report
        .servers
        .iter()
        .find_map(|server| server.changed.as_ref());
    let third = changed.map(|changed| {
        format!(
            "; meanwhile {} reloads, {} of the component, and {} uploads, half of them cut",
            changed.reloads,
            changed.components,
            changed.uploads + changed.cut_uploads
        )
    });
    let second = second + &third.unwrap_or_default();
    area.draw(&Text::new(second, (16, 44), font(14)))?;
    Ok(())
}

fn memory_curves(measured: &Measured) -> Vec<Curve> {
    let name = measured.server.name();
    let color = color(measured.server);
    let megabytes = |value: fn(&Sample) -> Option<u64>| {
        points(measured, |sample| Some(value(sample)? as f64 / MB))
    };
    let mut curves = vec![
        Curve {
            label: format!("{name}: process, anonymous"),
            color,
            stroke: Stroke::Solid,
            points: megabytes(|sample| Some(sample.process.anonymous_bytes)),
        },
        Curve {
            label: format!("{name}: kernel, its sockets"),
            color,
            stroke: kernel_stroke(measured.server),
            points: megabytes(|sample| sample.socket_bytes),
        },
        Curve {
            label: format!("{name}: its ledger"),
            color,
            stroke: Stroke::Dashed(2, 4),
            points: megabytes(|sample| Some(sample.memory.as_ref()?.ledger.total_bytes)),
        },
    ];
    curves.retain(|curve| !curve.points.is_empty());
    curves
}

fn files_curve(measured: &Measured) -> Curve {
    Curve {
        label: measured.server.name().to_owned(),
        color: color(measured.server),
        stroke: Stroke::Solid,
        points: points(measured, |sample| Some(sample.open_files as f64)),
    }
}

fn points(measured: &Measured, value: impl Fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
    let samples = measured.samples.iter();
    samples
        .filter_map(|sample| Some((sample.at_seconds, value(sample)?)))
        .collect()
}

/// The bound of a server that promises one: a line where it fits, a word where it lies above the picture.
fn bound(measured: &Measured, right: f64, top: f64) -> Option<Curve> {
    let bound = measured.summary.bound_bytes? as f64 / MB;
    let name = measured.server.name();
    let fits = bound <= top;
    Some(Curve {
        label: if fits {
            format!("{name}: its bound")
        } else {
            format!("{name}: its bound, {bound:.0} MB, is above")
        },
        color: color(measured.server),
        stroke: Stroke::Dashed(16, 3),
        points: if fits {
            vec![(0.0, bound), (right, bound)]
        } else {
            Vec::new()
        },
    })
}

/// A panel of curves over seconds, with their names beside it; of some servers, their bounds too.
fn draw_panel(
    report: &Report,
    area: &Area,
    title: &str,
    mut curves: Vec<Curve>,
    bounded: &[Measured],
) -> Result<()> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let right = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let top = all().map(|(_, y)| *y).fold(1.0, f64::max) * 1.08;
    curves.extend(
        bounded
            .iter()
            .filter_map(|measured| bound(measured, right, top)),
    );
    let area = area.margin(12, 4, 0, 0);
    let (width, _) = area.dim_in_pixel();
    let (area, legend) = area.split_horizontally(width - LEGEND_WIDTH);
    area.draw(&Text::new(title, (16, 2), font(16)))?;
    let mut chart = ChartBuilder::on(&area)
        .margin_top(32)
        .margin_right(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GRAY)
        .label_style(font(14))
        .x_desc("seconds")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    let end = report.load.duration().as_secs_f64();
    chart.draw_series(DashedLineSeries::new(
        [(end, 0.0), (end, top)],
        3,
        3,
        GRAY.stroke_width(1),
    ))?;
    let note = font(12).color(&GRAY).pos(Pos::new(HPos::Right, VPos::Top));
    let note = Text::new("the last is sent", (end - right * 0.005, top), note);
    chart.draw_series([note])?;
    for curve in &curves {
        let style = curve.color.stroke_width(2);
        let points = curve.points.iter().copied();
        match curve.stroke {
            Stroke::Solid => chart.draw_series(LineSeries::new(points, style))?,
            Stroke::Dashed(dash, gap) => {
                let points: Vec<_> = points.collect();
                chart.draw_series(DashedLineSeries::new(points, dash, gap, style))?
            }
        };
    }
    draw_legend(&legend, &curves)
}

fn draw_legend(area: &Area, curves: &[Curve]) -> Result<()> {
    let (left, right) = (8, 44);
    let mut y = 44;
    for curve in curves {
        let style = curve.color.stroke_width(2);
        let line = [(left, y), (right, y)];
        match curve.stroke {
            _ if curve.points.is_empty() => {}
            Stroke::Solid => area.draw(&PathElement::new(line, style))?,
            Stroke::Dashed(dash, gap) => {
                area.draw(&DashedPathElement::new(line, dash, gap, style))?;
            }
        }
        let middle = font(14).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(curve.label.as_str(), (right + 8, y), middle))?;
        y += LEGEND_LINE_HEIGHT;
    }
    Ok(())
}

fn font(size: i32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK)
}

/// Stroke of a server's line for the kernel. Slow readers leave the same bytes in the kernel with every server, so lines may
/// overlap. A later line has more gaps, so that those beneath it are visible.
fn kernel_stroke(server: Kind) -> Stroke {
    match server {
        Kind::Millpond | Kind::MillpondS3 => Stroke::Dashed(14, 4),
        Kind::Express => Stroke::Dashed(9, 9),
        Kind::ExpressHandlers => Stroke::Dashed(4, 14),
    }
}

/// Three colours that colour-blind readers can tell apart too.
fn color(server: Kind) -> RGBColor {
    match server {
        Kind::Millpond => RGBColor(0, 114, 178),
        Kind::MillpondS3 => RGBColor(86, 180, 233),
        Kind::Express => RGBColor(213, 94, 0),
        Kind::ExpressHandlers => RGBColor(0, 158, 115),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::replay::report::tests::report;

    #[test]
    fn every_curve_is_named_and_only_those_that_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.svg");
        let drawn = |bound_bytes| {
            draw(&report(bound_bytes), &path).unwrap();
            std::fs::read_to_string(&path).unwrap()
        };
        let svg = drawn(40_000_000);
        for label in [
            "millpond: process, anonymous",
            "millpond: kernel, its sockets",
            "millpond: its ledger",
            "millpond: its bound",
            "express: process, anonymous",
            "Open files",
            "seconds",
        ] {
            assert!(svg.contains(label), "{label}");
        }
        assert!(!svg.contains("express: its ledger"));
        assert!(drawn(9_000_000_000).contains("millpond: its bound, 9000 MB, is above"));
    }
}
