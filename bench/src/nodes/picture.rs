//! The picture: requests to the origin by the number of nodes, for each balancer.

use super::balancer::Balancing;
use super::{CacheSize, EXPONENTS, NODES, Row};
use anyhow::Result;
use plotters::prelude::*;

const WIDTH: u32 = 1100;
const HEIGHT: u32 = 420;
const FONT: &str = "sans-serif";
const GRAY: RGBColor = RGBColor(130, 130, 130);
const FAINT: RGBColor = RGBColor(226, 226, 226);

/// Draws the shares of requests that go to the origin. Returns an SVG file.
pub(crate) fn draw(rows: &[Row]) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE)?;
        let (title, rest) = root.split_vertically(64);
        let text = "Requests that go to the origin, by the number of nodes; caches of 20 % of all bytes over all nodes";
        title.draw(&Text::new(text, (16, 10), (FONT, 18).into_font()))?;
        let mut x = 16;
        for balancing in Balancing::ALL {
            let line = [(x, 48), (x + 28, 48)];
            title.draw(&PathElement::new(line, color(balancing).stroke_width(3)))?;
            title.draw(&Text::new(
                balancing.name(),
                (x + 36, 41),
                (FONT, 14).into_font(),
            ))?;
            x += 60 + 7 * i32::try_from(balancing.name().len())?;
        }
        let panels = rest.split_evenly((1, EXPONENTS.len()));
        for (exponent, panel) in EXPONENTS.into_iter().zip(&panels) {
            let name = format!("popularity by Zipf {exponent}");
            panel.draw(&Text::new(name, (60, 2), (FONT, 15).into_font()))?;
            let mut chart = ChartBuilder::on(panel)
                .margin_top(26)
                .margin_right(24)
                .x_label_area_size(40)
                .y_label_area_size(52)
                .build_cartesian_2d((1.0..400.0_f64).log_scale(), 0.0..1.0_f64)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .light_line_style(TRANSPARENT)
                .bold_line_style(FAINT)
                .axis_style(GRAY)
                .label_style((FONT, 13).into_font())
                .x_desc("nodes")
                .y_label_formatter(&|y| format!("{:.0} %", y * 100.0))
                .draw()?;
            for balancing in Balancing::ALL {
                let points = NODES.into_iter().filter_map(|nodes| {
                    let is_it = |row: &&Row| {
                        row.exponent == exponent
                            && row.size == CacheSize::Shared
                            && row.nodes == nodes
                            && (row.balancing == balancing || nodes == 1)
                    };
                    let row = rows.iter().find(is_it)?;
                    Some((nodes as f64, 1.0 - row.result.hit_ratio()))
                });
                chart.draw_series(LineSeries::new(points, color(balancing).stroke_width(2)))?;
            }
        }
        root.present()?;
    }
    Ok(svg)
}

fn color(balancing: Balancing) -> RGBColor {
    match balancing {
        Balancing::Random => RGBColor(217, 95, 2),
        Balancing::Hash => RGBColor(27, 120, 190),
        Balancing::BoundedHash => RGBColor(27, 140, 90),
    }
}
