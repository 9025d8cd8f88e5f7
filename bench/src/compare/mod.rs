//! `compare`: millpond beside other servers, in the same rounds, on the same files, over the same sockets.

mod check;
mod idle;
pub(crate) mod load;
mod measure;
mod media;
mod peers;
mod report;
mod rows;
mod scale;
mod server;
mod tls;

pub(crate) use self::load::sender::Send;
pub(crate) use self::peers::Bare;

use self::measure::Measure;
use self::media::Media;
use self::peers::{Peer, Programs, Recorded, Series};
use self::report::{Measured, Report, RowReport};
use self::rows::Row;
use crate::cores::{CoreList, Cores, cores};
use crate::interrupt::unless_interrupted;
use crate::machine::{Machine, commit};
use crate::process::raise_open_files;
use crate::program::find;
use crate::spread::rotation;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use tokio::runtime::Builder;

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// A row to measure, by its name; can stand more than once. All, where none is named.
    #[arg(long, value_name = "ROW", value_parser = row_names())]
    only: Vec<String>,

    /// A server to measure; can stand more than once. All that are to be had, where none is named.
    #[arg(long = "server", value_name = "SERVER")]
    servers: Vec<Series>,

    /// Rounds: in each, every server is measured once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,

    /// How long a server is loaded in a round, in seconds.
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// A look in some minutes: one round of a second each, and fewer files.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,

    /// The millpond to measure [default: target/dist/millpond of this workspace].
    #[arg(long, value_name = "FILE")]
    millpond: Option<PathBuf>,

    /// The wasmtime to measure [default: the one of `cargo xtask hosts`, or the one in PATH].
    #[arg(long, value_name = "FILE")]
    wasmtime: Option<PathBuf>,

    /// Cores that servers run on, with commas; `none` leaves it to the system.
    #[arg(long, value_name = "CORES", default_value = "0", value_parser = cores)]
    server_cores: CoreList,

    /// Cores that the load runs on.
    #[arg(long, value_name = "CORES", default_value = "1", value_parser = cores)]
    load_cores: CoreList,

    /// Where bench.json, bench.svg and README.md are put [default: bench/results of this workspace, with docs/comparison.md
    /// renewed, after a whole run, and else target/bench/results].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Files that are asked for once, in a measurement.
const COLD_FILES: usize = 50_000;
const QUICK_COLD_FILES: usize = 10_000;

impl Compare {
    pub(crate) fn run(mut self) -> Result<()> {
        raise_open_files();
        if self.quick {
            (self.rounds, self.seconds) = (1, 1);
        }
        ensure!(
            find("wrk").is_some(),
            "there is no wrk here; `apt-get install wrk` installs it"
        );
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = crate_folder.parent().unwrap_or(crate_folder);
        let is_whole = !self.quick && self.only.is_empty() && self.servers.is_empty();
        let is_kept = is_whole && self.out.is_none();
        let out = self.out.clone().unwrap_or_else(|| match is_kept {
            true => crate_folder.join("results"),
            false => workspace.join("target/bench/results"),
        });
        fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        let programs = Programs {
            workspace: workspace.to_owned(),
            millpond: self
                .millpond
                .clone()
                .unwrap_or_else(|| workspace.join("target/dist/millpond")),
            wasmtime: self.wasmtime.clone(),
        };
        let report =
            unless_interrupted(&mut Builder::new_current_thread(), self.compare(&programs))?;
        report.write(&out)?;
        if is_kept {
            report.renew(&workspace.join("docs/comparison.md"))?;
        }
        Ok(())
    }

    async fn compare(&self, programs: &Programs) -> Result<Report> {
        let mut left_out = Vec::new();
        let mut peers = peers::all(programs, |why| {
            eprintln!("{why}");
            left_out.push(why);
        })?;
        peers.retain(|peer| self.servers.is_empty() || self.servers.contains(&peer.series()));
        let media = Media::make(&programs.millpond, &programs.workspace.join("target/bench"))?;
        let cores = Cores {
            servers: self.server_cores.0.clone(),
            load: self.load_cores.0.clone(),
        };
        let measure = Measure {
            media: &media,
            cores: &cores,
            seconds: self.seconds,
            cold_files: if self.quick {
                QUICK_COLD_FILES
            } else {
                COLD_FILES
            },
        };
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let mut rows = Vec::new();
        for row in rows::all() {
            if wanted(row.name) {
                rows.push(self.compare_row(&measure, &peers, row).await?);
            }
        }
        let scale = if wanted(scale::NAME) {
            scale::measure(&measure, &peers, self.quick).await?
        } else {
            Vec::new()
        };
        Ok(Report {
            machine: Machine::describe(&programs.millpond),
            commit: commit(&programs.workspace),
            ended: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            rounds: self.rounds,
            seconds: self.seconds,
            server_cores: cores.servers.clone(),
            load_cores: cores.load.clone(),
            left_out,
            rows,
            scale,
        })
    }

    /// All rounds of a row. A server that fails in it is left out of the rest of it, and the others go on.
    async fn compare_row(
        &self,
        measure: &Measure<'_>,
        peers: &[Box<dyn Peer>],
        row: Row,
    ) -> Result<RowReport> {
        eprintln!("{}", row.title);
        let mut measured: Vec<Measured> = peers
            .iter()
            .map(|peer| Measured::new(peer.as_ref()))
            .collect();
        let recorded = record(measure, peers, &row)?;
        for round in 0..self.rounds as usize {
            for number in rotation(peers.len(), round) {
                let (peer, measured) = (peers[number].as_ref(), &mut measured[number]);
                if measured.left_out.is_some() {
                    continue;
                }
                if let Some(why) = measure::unfit(peer, &row) {
                    measured.left_out = Some(why);
                    continue;
                }
                match measure.measure(peer, &row, recorded.as_ref()).await {
                    Ok(figures) => {
                        eprintln!("  {}: {:.0}/s", peer.title(), figures.answers_per_second);
                        measured.rounds.push(figures);
                    }
                    Err(error) => {
                        eprintln!("  {}: {error:#}", peer.title());
                        measured.left_out = Some(format!("{error:#}"));
                    }
                }
            }
        }
        Ok(RowReport { row, measured })
    }
}

/// One answer of millpond's, for the bare loop to give again; none where neither is measured.
fn record(measure: &Measure, peers: &[Box<dyn Peer>], row: &Row) -> Result<Option<Recorded>> {
    let millpond = peers
        .iter()
        .find(|peer| matches!(peer.series(), Series::Millpond | Series::MillpondFresh));
    let Some(millpond) = millpond else {
        return Ok(None);
    };
    let recorded = measure.record(millpond.as_ref(), row);
    let recorded = recorded.with_context(|| format!("millpond in the row {}", row.name))?;
    Ok(Some(recorded))
}

fn row_names() -> clap::builder::PossibleValuesParser {
    let rows = rows::all().into_iter().map(|row| row.name);
    rows.chain([scale::NAME]).collect::<Vec<_>>().into()
}
