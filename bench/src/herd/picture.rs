//! The picture of the herd: a panel for each cache, side by side, over the same seconds.

use super::content::Object;
use super::report::{Measured, Report};
use crate::spread::Spread;
use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const WIDTH: u32 = 1280;
const HEIGHT: u32 = 520;
const TITLE_HEIGHT: u32 = 96;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRAY: RGBColor = RGBColor(130, 130, 130);
const FAINT: RGBColor = RGBColor(226, 226, 226);
const ORIGIN: RGBColor = RGBColor(217, 95, 2);
const FIRST: RGBColor = RGBColor(27, 120, 190);
const LAST: RGBColor = RGBColor(27, 140, 90);

/// First moment of the picture, in seconds. Its scale is logarithmic.
const BEGIN: f64 = 0.01;

/// Share of the height beneath zero that has the marks of requests.
const MARKS: f64 = 0.16;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the last round of each cache into an SVG file.
pub(crate) fn draw(report: &Report, path: &Path) -> Result<()> {
    let root = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let (title, rest) = root.split_vertically(TITLE_HEIGHT);
    draw_title(report, &title)?;
    let servers: Vec<&Measured> = report
        .servers
        .iter()
        .filter(|server| !server.herd.is_empty())
        .collect();
    let ends = servers
        .iter()
        .filter_map(|server| server.herd.last()?.curves.last_bytes.last().copied());
    let end = ends.fold(10.0 * BEGIN, f64::max) * 1.2;
    let panels = rest.split_evenly((1, servers.len().max(1)));
    for (server, panel) in servers.iter().zip(&panels) {
        draw_panel(report, server, end, panel)?;
    }
    root.present()?;
    Ok(())
}

fn draw_title(report: &Report, area: &Area) -> Result<()> {
    let title = format!(
        "{} clients request one object of 50 MB at once, from an empty cache",
        report.clients
    );
    area.draw(&Text::new(title, (16, 14), font(22)))?;
    let legend = [
        (
            ORIGIN,
            "sent by the origin, share of the object; marks: its GETs",
        ),
        (FIRST, "clients with a first byte"),
        (LAST, "clients with the last byte"),
    ];
    let mut x = 16;
    for (color, label) in legend {
        area.draw(&PathElement::new(
            [(x, 58), (x + 28, 58)],
            color.stroke_width(3),
        ))?;
        area.draw(&Text::new(label, (x + 36, 51), font(14)))?;
        // Some 7 pixels for each letter, and a gap.
        x += 36 + 7 * i32::try_from(label.len())? + 24;
    }
    let note = "seconds on a logarithmic scale; the dashed line is the download by one client without a cache";
    area.draw(&Text::new(note, (16, 74), font(13).color(&GRAY)))?;
    Ok(())
}

fn draw_panel(report: &Report, server: &Measured, end: f64, area: &Area) -> Result<()> {
    let Some(herd) = server.herd.last() else {
        return Ok(());
    };
    let name = format!(
        "{}; GETs at the origin: {}",
        server.cache.name(),
        herd.origin_requests
    );
    area.draw(&Text::new(name, (52, 2), font(16)))?;
    let curves = &herd.curves;
    let top = sent_shares(&curves.sent)
        .last()
        .map_or(1.0, |(_, share)| share.max(1.0))
        * 1.05;
    let bottom = -MARKS * top;
    let mut chart = ChartBuilder::on(area)
        .margin_top(26)
        .margin_right(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d((BEGIN..end).log_scale(), bottom..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GRAY)
        .label_style(font(13))
        .x_labels(5)
        .x_label_formatter(&|x| x.to_string())
        .y_label_formatter(&|y| match *y < -1e-9 {
            true => String::new(),
            false => format!("{:.0} %", y * 100.0),
        })
        .draw()?;
    let plain = Spread::of(report.plain_download.iter().copied());
    if let Some(plain) = plain {
        let line = [(plain.median, 0.0), (plain.median, top)];
        chart.draw_series(DashedLineSeries::new(line, 4, 4, GRAY.stroke_width(1)))?;
    }
    for at in &curves.requests {
        let at = at.max(BEGIN);
        let mark = [(at, bottom * 0.9), (at, bottom * 0.3)];
        chart.draw_series([PathElement::new(mark, ORIGIN.stroke_width(1))])?;
    }
    for (color, points) in [
        (ORIGIN, sent_shares(&curves.sent)),
        (FIRST, client_shares(&curves.first_bytes, report.clients)),
        (LAST, client_shares(&curves.last_bytes, report.clients)),
    ] {
        let begun = std::iter::once((BEGIN, 0.0)).chain(points);
        chart.draw_series(LineSeries::new(begun, color.stroke_width(2)))?;
    }
    Ok(())
}

/// Returns the bytes that the origin had sent at each time, as a share of the object.
fn sent_shares(sent: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let mut total = 0;
    let share = |(at, bytes): &(f64, u64)| {
        total += bytes;
        let share = total as f64 / Object::FIFTY_MEGABYTES.bytes as f64;
        (at.max(BEGIN), share)
    };
    sent.iter().map(share).collect()
}

/// Returns the share of the clients that had come so far at each time.
fn client_shares(times: &[f64], clients: usize) -> Vec<(f64, f64)> {
    let share = |(number, at): (usize, &f64)| {
        let share = (number + 1) as f64 / clients as f64;
        (at.max(BEGIN), share)
    };
    times.iter().enumerate().map(share).collect()
}

fn font(size: i32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::herd::report::tests::report;

    #[test]
    fn every_cache_has_a_panel() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.svg");
        draw(&report(), &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for label in [
            "nginx, lock; GETs at the origin: 2",
            "Varnish; GETs at the origin: 1",
            "100 %",
            "clients with a first byte",
        ] {
            assert!(svg.contains(label), "{label}");
        }
    }

    #[test]
    fn shares_grow_to_one() {
        let sent = [(0.001, 25_000_000), (0.5, 25_000_000)];
        assert_eq!(sent_shares(&sent), [(BEGIN, 0.5), (0.5, 1.0)]);
        assert_eq!(client_shares(&[0.2, 0.4], 4), [(0.2, 0.25), (0.4, 0.5)]);
    }
}
