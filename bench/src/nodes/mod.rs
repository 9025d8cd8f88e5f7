//! `nodes`: simulates caches of several nodes behind a balancer, over a made-up trace.

mod balancer;
mod picture;
mod simulation;
mod trace;

use self::balancer::Balancing;
use self::simulation::{SimulationResult, simulate};
use self::trace::{Trace, TraceShape};
use crate::table::Table;
use anyhow::{Context, Result};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Args)]
pub(crate) struct Nodes {
    /// Requests of the trace.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    requests: usize,

    /// Objects of the trace.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    objects: usize,

    /// File for the picture [default: docs/nodes.svg of this workspace].
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// Numbers of nodes.
const NODES: [usize; 4] = [1, 3, 30, 300];

/// Exponents of the popularity of objects (Zipf). Measurements of media are between them.
const EXPONENTS: [f64; 2] = [0.8, 1.0];

/// Share of all bytes that the caches of all nodes have together.
const CACHE_SHARE: f64 = 0.2;

/// Share of all bytes that the cache of one node has, where each node brings a cache of its own.
const NODE_SHARE: f64 = 0.02;

/// Size of the caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheSize {
    /// All nodes together have as much, whatever their number.
    Shared,
    /// Each node has as much.
    PerNode,
}

impl CacheSize {
    fn name(self) -> &'static str {
        match self {
            CacheSize::Shared => "20 % of all bytes over all nodes",
            CacheSize::PerNode => "2 % of all bytes on each node",
        }
    }

    /// Bytes of one node's cache.
    fn bytes(self, all_bytes: u64, nodes: usize) -> u64 {
        let share = match self {
            CacheSize::Shared => CACHE_SHARE / nodes as f64,
            CacheSize::PerNode => NODE_SHARE,
        };
        (all_bytes as f64 * share) as u64
    }
}

/// One row of the results.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) exponent: f64,
    pub(crate) size: CacheSize,
    pub(crate) nodes: usize,
    pub(crate) balancing: Balancing,
    pub(crate) result: SimulationResult,
}

impl Nodes {
    pub(crate) fn run(self) -> Result<()> {
        let rows = rows(self.requests, self.objects);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let file = self
            .picture
            .clone()
            .or_else(|| Some(root?.join("docs/nodes.svg")));
        let file = file.context("there is no workspace")?;
        println!("{}", markdown(&rows));
        let moves = moves_table(self.objects);
        println!("**{}**\n\n{}", moves.heading, moves.rows_in_markdown());
        fs::write(&file, picture::draw(&rows)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
        Ok(())
    }
}

/// Simulates each case. The same numbers give the same rows.
fn rows(requests: usize, objects: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for exponent in EXPONENTS {
        let trace = Trace::new(TraceShape {
            requests,
            objects,
            exponent,
        });
        for size in [CacheSize::Shared, CacheSize::PerNode] {
            for nodes in NODES {
                for balancing in Balancing::ALL {
                    if nodes == 1 && balancing != Balancing::Random {
                        continue;
                    }
                    let cache_bytes = size.bytes(trace.all_bytes(), nodes);
                    rows.push(Row {
                        exponent,
                        size,
                        nodes,
                        balancing,
                        result: simulate(&trace, nodes, balancing, cache_bytes),
                    });
                }
            }
        }
    }
    rows
}

fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    for exponent in EXPONENTS {
        for size in [CacheSize::Shared, CacheSize::PerNode] {
            let of_case = rows
                .iter()
                .filter(|row| row.exponent == exponent && row.size == size);
            let table = Table {
                heading: format!("Zipf {exponent}, caches of {}", size.name()),
                about: String::new(),
                columns: [
                    "nodes",
                    "balancing",
                    "hits",
                    "hits by bytes",
                    "requests to the origin",
                    "busiest node",
                ]
                .map(str::to_owned)
                .to_vec(),
                rows: of_case.map(cells).collect(),
            };
            text += &format!("**{}**\n\n{}\n", table.heading, table.rows_in_markdown());
        }
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let balancing = match row.nodes {
        1 => "–",
        _ => row.balancing.name(),
    };
    vec![
        row.nodes.to_string(),
        balancing.to_owned(),
        percent(row.result.hit_ratio()),
        percent(row.result.byte_hit_ratio()),
        row.result.misses.to_string(),
        format!("{:.2} × mean", row.result.busiest),
    ]
}

/// Returns the share of objects that change their node when one of the nodes leaves.
fn moves_table(objects: usize) -> Table {
    let row = |nodes: usize| {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        vec![
            nodes.to_string(),
            percent(balancer::moved_by_ring(objects, nodes)),
            percent(balancer::moved_by_remainder(objects, nodes)),
        ]
    };
    Table {
        heading: "Objects that move".to_owned(),
        about: String::new(),
        columns: [
            "nodes",
            "consistent hash",
            "hash modulo the number of nodes",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: NODES
            .into_iter()
            .filter(|nodes| *nodes > 1)
            .map(row)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trace_gives_the_same_table() {
        let table = || markdown(&rows(5_000, 1_000));
        assert_eq!(table(), table());
    }

    #[test]
    fn hashing_by_path_has_more_hits_than_any_node_and_less_balance() {
        let rows = rows(20_000, 2_000);
        let of = |balancing| {
            let row = rows.iter().find(|row| {
                row.nodes == 3 && row.balancing == balancing && row.size == CacheSize::Shared
            });
            row.map(|row| (row.result.misses, row.result.busiest))
        };
        let (random, hash) = (of(Balancing::Random), of(Balancing::Hash));
        assert!(hash.map(|of| of.0) < random.map(|of| of.0));
        assert!(hash.map(|of| of.1) > random.map(|of| of.1));
    }
}
