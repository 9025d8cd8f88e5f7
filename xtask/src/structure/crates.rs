//! The crates of the workspace, in layers: each depends on crates of lower layers only.

use anyhow::{Context, Result, ensure};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

/// The layers, highest first, with the column of each crate in the picture. Tools and tests are in none of them: nothing
/// depends on those.
const LAYERS: [&[(&str, usize)]; 5] = [
    &[("millpond-cli", 0)],
    &[("millpond-server", 0), ("millpond-origin", 1)],
    &[
        ("millpond", 0),
        ("millpond-media-serve", 1),
        ("millpond-store", 2),
        ("millpond-blobstore", 3),
    ],
    &[("millpond-guest", 1), ("millpond-media-store", 2)],
    &[("millpond-ledger", 0), ("millpond-format", 1)],
];

/// The picture of the crates in layers, as SVG.
///
/// # Errors
/// When a crate depends on one of its own layer or of a higher one.
pub(super) fn picture(root: &Path) -> Result<String> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cannot run cargo metadata")?;
    let packages = metadata.packages.iter();
    let packages: Vec<_> = packages
        .filter(|package| layer(&package.name).is_some())
        .collect();
    let mut edges = BTreeSet::new();
    for package in &packages {
        for name in dependencies(package) {
            let (from, to) = (layer(&package.name), layer(&name));
            ensure!(
                from < to,
                "{} depends on {name}, which is not in a lower layer",
                package.name
            );
            edges.insert((package.name.to_string(), name));
        }
    }
    Ok(draw(&packages, &edges))
}

/// How far below the top a crate is; `None` for one that is in no layer.
fn layer(name: &str) -> Option<usize> {
    let has = |layer: &&[(&str, usize)]| layer.iter().any(|(other, _)| *other == name);
    LAYERS.iter().position(has)
}

/// The crates in layers that a crate is compiled with, tests apart.
fn dependencies(package: &Package) -> Vec<String> {
    let normal = package.dependencies.iter();
    let normal = normal.filter(|dependency| dependency.kind == DependencyKind::Normal);
    let names = normal.map(|dependency| dependency.name.clone());
    names.filter(|name| layer(name).is_some()).collect()
}

const BOX_WIDTH: usize = 250;
const BOX_HEIGHT: usize = 76;
const GAP: usize = 30;
const ROW_HEIGHT: usize = 136;
/// Room beside the first column for arrows.
const MARGIN: usize = 80;
const WIDTH: usize = MARGIN + 4 * (BOX_WIDTH + GAP);

/// Where the box of a crate begins.
fn place(name: &str) -> Option<(usize, usize)> {
    let row = layer(name)?;
    let (_, column) = LAYERS[row].iter().find(|(other, _)| *other == name)?;
    Some((MARGIN + column * (BOX_WIDTH + GAP), GAP + row * ROW_HEIGHT))
}

/// An arrow from a box to a lower one. One that leads past boxes of its column goes around them.
fn arrow((x1, y1): (usize, usize), (x2, y2): (usize, usize)) -> String {
    let (top, middle) = (y1 + BOX_HEIGHT, BOX_HEIGHT / 2);
    if x1 == x2 && y2 - y1 > ROW_HEIGHT {
        let (from, to, beside) = (y1 + middle, y2 + middle, x1.saturating_sub(MARGIN - 8));
        return format!("M{x1} {from}C{beside} {from} {beside} {to} {x2} {to}");
    }
    let (x1, x2) = (x1 + BOX_WIDTH / 2, x2 + BOX_WIDTH / 2);
    let bend = (y2 - top) / 2;
    format!(
        "M{x1} {top}C{x1} {} {x2} {} {x2} {y2}",
        top + bend,
        y2 - bend
    )
}

fn draw(packages: &[&Package], edges: &BTreeSet<(String, String)>) -> String {
    let height = GAP + LAYERS.len() * ROW_HEIGHT - (ROW_HEIGHT - BOX_HEIGHT) + GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         role=\"img\" aria-label=\"The crates of millpond in layers\">\n\
         <style>.box{{fill:#f4f7f9;stroke:#35607a}}.name{{font-weight:bold;font-size:15px;fill:#12303f}}\
         .text{{font-size:11px;fill:#33474f}}.edge{{stroke:#7a95a3;stroke-width:1.5;fill:none}}\
         @media (prefers-color-scheme:dark){{.box{{fill:#172a33;stroke:#7fb0c9}}.name{{fill:#e3f1f8}}\
         .text{{fill:#b7cad3}}}}</style>\n\
         <defs><marker id=\"end\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#7a95a3\"/></marker></defs>\n"
    );
    for (from, to) in edges {
        let (Some(from), Some(to)) = (place(from), place(to)) else {
            continue;
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<path class=\"edge\" marker-end=\"url(#end)\" d=\"{}\"/>",
            arrow(from, to)
        );
    }
    for package in packages {
        let Some((x, y)) = place(&package.name) else {
            continue;
        };
        let _ = writeln!(
            svg,
            "<rect class=\"box\" x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"8\"/>\n\
             <text class=\"name\" x=\"{}\" y=\"{}\">{}</text>",
            x + 12,
            y + 22,
            package.name,
        );
        let description = package.description.as_deref().unwrap_or_default();
        for (line, text) in wrap(description).iter().take(3).enumerate() {
            let (x, y) = (x + 12, y + 40 + line * 14);
            let _ = writeln!(
                svg,
                "<text class=\"text\" x=\"{x}\" y=\"{y}\">{text}</text>"
            );
        }
    }
    svg + "</svg>\n"
}

/// Lines that fit a box, with what has a meaning in SVG escaped.
fn wrap(text: &str) -> Vec<String> {
    const LINE: usize = 37;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < LINE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    let escape = |line: &String| line.replace('&', "&amp;").replace('<', "&lt;");
    lines.iter().map(escape).collect()
}
