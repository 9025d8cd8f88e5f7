//! `replay`: the original's load against each server in turn, looked at while it runs.

mod changes;
mod drive;
mod load;
mod media;
mod memory;
mod picture;
mod report;
mod request;
mod s3;
mod sample;
mod servers;
mod slope;
mod tally;

use self::changes::{Changed, Changer, Files};
use self::drive::drive;
use self::load::Load;
use self::report::{Measured, Report};
use self::request::Clients;
use self::s3::S3Server;
use self::sample::Sampler;
use self::servers::{Kind, Setup};
use crate::express;
use crate::interrupt::unless_interrupted;
use crate::machine::Machine;
use crate::process;
use crate::store::Media;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::time::sleep;

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Server to load; can stand more than once. All, one after the other, where none is named.
    #[arg(long = "server", value_name = "SERVER")]
    servers: Vec<Kind>,

    /// The millpond to measure, which also makes the store for all servers [default:
    /// target/release/millpond of this workspace].
    #[arg(long, value_name = "FILE")]
    millpond: Option<PathBuf>,

    #[command(flatten)]
    load: Load,

    /// Files in the store, of sizes around 500 KB.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=2000))]
    files: u64,

    /// Most GETs that are on their way at once; what would be more is not sent, and counted.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=8192))]
    in_flight: u64,

    /// Change millpond while it is loaded: settings, component, log and uploads. It needs `--server millpond`, and
    /// writes changes.svg and changes.json.
    #[arg(long)]
    changes: bool,

    /// Where replay.svg and replay.json are put [default: bench/results of this workspace].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// How long a server is left alone at the end, before it is judged.
const REST: Duration = Duration::from_secs(3);

impl Replay {
    pub(crate) fn run(self) -> Result<()> {
        self.load.check()?;
        ensure!(
            !self.changes || self.servers == [Kind::Millpond],
            "--changes needs --server millpond, and no other"
        );
        process::raise_open_files();
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = crate_folder.parent().unwrap_or(crate_folder);
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| crate_folder.join("results"));
        fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
        let setup = Setup {
            millpond: self
                .millpond
                .clone()
                .unwrap_or_else(|| workspace.join("target/release/millpond")),
            express: crate_folder.join("express"),
            store: temporary.path().join("store"),
            s3: match self.servers.contains(&Kind::MillpondS3) {
                true => Some(S3Server::start(temporary.path())?),
                false => None,
            },
            logs: temporary.path().to_owned(),
            changes: match self.changes {
                true => Some(Files::make(temporary.path(), workspace)?),
                false => None,
            },
        };
        let report = unless_interrupted(&mut Builder::new_multi_thread(), self.measure(&setup))?;
        write(
            &report,
            &out,
            if self.changes { "changes" } else { "replay" },
        )
    }

    async fn measure(&self, setup: &Setup) -> Result<Report> {
        let kinds = if self.servers.is_empty() {
            &[Kind::Millpond, Kind::Express, Kind::ExpressHandlers]
        } else {
            &self.servers[..]
        };
        if kinds.iter().any(|kind| kind.name().starts_with("express")) {
            express::install(&setup.express)?;
        }
        let files = usize::try_from(self.files)?;
        let media = media::make_store(&setup.millpond, &setup.store, files, self.load.seed)?;
        let mut servers = Vec::new();
        for kind in kinds {
            servers.push(self.measure_one(*kind, setup, &media).await?);
        }
        Ok(Report {
            machine: Machine::describe(&setup.millpond),
            load: self.load.clone(),
            files,
            files_bytes: media.iter().map(|media| media.size).sum(),
            in_flight: usize::try_from(self.in_flight)?,
            servers,
        })
    }

    async fn measure_one(&self, kind: Kind, setup: &Setup, media: &[Media]) -> Result<Measured> {
        let server = setup.start(kind)?;
        let (name, seconds, address) = (kind.name(), self.load.seconds, server.address);
        eprintln!("{name}: {seconds} s of load on {address}");
        let clients = Clients::new(address);
        let in_flight = usize::try_from(self.in_flight)?;
        let sampler = Sampler::new(&server, self.load.duration())?;
        let mut samples = Vec::new();
        let changer = setup.changes.as_ref();
        let changer = changer
            .map(|files| Changer::new(&server, files))
            .transpose()?;
        let mut changed = Changed::default();
        let changes = async {
            match &changer {
                Some(changer) => changer.keep_changing(&mut changed).await,
                None => std::future::pending().await,
            }
        };
        let load = async {
            let tally = drive(self.load.plan(media), clients, in_flight).await;
            sleep(REST).await;
            tally
        };
        let (tally, last) = async {
            let tally = tokio::select! {
                tally = load => tally,
                gone = sampler.keep_looking(&mut samples) => match gone? {},
                never = changes => match never {},
            };
            anyhow::Ok((tally, sampler.look().await?))
        }
        .await
        .with_context(|| format!("{name} fails{}", server.last_words()))?;
        samples.push(last);
        let mut measured = Measured::new(kind, &self.load, tally, samples);
        changed.batches = changer.as_ref().map_or(0, Changer::batches);
        measured.changed = self.changes.then_some(changed);
        Ok(measured)
    }
}

fn write(report: &Report, out: &Path, name: &str) -> Result<()> {
    let json = out.join(name).with_extension("json");
    let mut file = File::create(&json)
        .map(BufWriter::new)
        .with_context(|| format!("cannot write {}", json.display()))?;
    serde_json::to_writer(&mut file, report)?;
    file.flush()?;
    let svg = out.join(name).with_extension("svg");
    picture::draw(report, &svg).with_context(|| format!("cannot draw {}", svg.display()))?;
    println!("{}", report.table());
    println!("{}\n{}", svg.display(), json.display());
    Ok(())
}
