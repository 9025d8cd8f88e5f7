//! `herd`: many clients request one object at once from a cache that does not have it, beside other caches.

mod content;
mod crowd;
mod measure;
mod origin;
mod picture;
mod report;
mod servers;

use self::content::Object;
use self::measure::Ground;
use self::origin::{Origin, Speed};
use self::report::{Measured, Report};
use self::servers::{Cache, Site, version_of};
use crate::cores::{CoreList, cores, on_cores};
use crate::interrupt::unless_interrupted;
use crate::machine::{Machine, commit};
use crate::process::raise_open_files;
use crate::program::find;
use crate::spread::rotation;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Builder;

#[derive(Debug, Clone, Args)]
pub(crate) struct Herd {
    /// Cache to measure; can stand more than once. All that are to be had, where none is named.
    #[arg(long = "server", value_name = "SERVER")]
    servers: Vec<Cache>,

    /// Clients of the herd.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=4000))]
    clients: u64,

    /// Rounds of the herd: in each, every cache is measured once.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,

    /// Seconds of load for each object that is a hit; 0 leaves the hits out.
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=600))]
    seconds: u64,

    /// Bytes that the origin sends in a second, in MB.
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    origin_rate: u64,

    /// Time from a request to the head of the origin's response.
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = humantime::parse_duration)]
    origin_latency: Duration,

    /// The millpond to measure [default: target/dist/millpond of this workspace].
    #[arg(long, value_name = "FILE")]
    millpond: Option<PathBuf>,

    /// Cores that caches run on, with commas; `none` leaves it to the system.
    #[arg(long, value_name = "CORES", default_value = "0", value_parser = cores)]
    server_cores: CoreList,

    /// Cores that the origin and the clients run on.
    #[arg(long, value_name = "CORES", default_value = "1", value_parser = cores)]
    load_cores: CoreList,

    /// Where herd.svg and herd.json are put [default: docs and bench/results of this workspace after a whole run, and else
    /// target/bench/results].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Herd {
    pub(crate) fn run(self) -> Result<()> {
        raise_open_files();
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = crate_folder.parent().unwrap_or(crate_folder);
        let measurement = {
            let workspace = workspace.to_owned();
            let herd = self.clone();
            // It blocks its thread, so that the signals are heard by another one.
            async move { tokio::task::spawn_blocking(move || herd.measure(&workspace)).await? }
        };
        let report = unless_interrupted(&mut Builder::new_current_thread(), measurement)?;
        let is_whole = report.left_out.is_empty() && self.servers.is_empty();
        let partial = workspace.join("target/bench/results");
        let (svg, json) = match (&self.out, is_whole) {
            (Some(out), _) => (out.clone(), out.clone()),
            (None, true) => (workspace.join("docs"), crate_folder.join("results")),
            (None, false) => (partial.clone(), partial),
        };
        for folder in [&svg, &json] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let (svg, json) = (svg.join("herd.svg"), json.join("herd.json"));
        fs::write(&json, serde_json::to_vec(&report)?)
            .with_context(|| format!("cannot write {}", json.display()))?;
        picture::draw(&report, &svg).with_context(|| format!("cannot draw {}", svg.display()))?;
        println!("{}", report.markdown());
        println!("{}\n{}", svg.display(), json.display());
        Ok(())
    }

    fn measure(&self, workspace: &Path) -> Result<Report> {
        let millpond = self
            .millpond
            .clone()
            .unwrap_or_else(|| workspace.join("target/dist/millpond"));
        let speed = Speed {
            bytes_per_second: self.origin_rate * 1_000_000,
            latency: self.origin_latency,
        };
        let origin = on_cores(&self.load_cores.0, || Origin::start(speed))??;
        let ground = Ground {
            site: Site {
                millpond: &millpond,
                origin: origin.address,
                cores: &self.server_cores.0,
            },
            origin: &origin,
            load_cores: &self.load_cores.0,
            clients: usize::try_from(self.clients)?,
            seconds: self.seconds,
        };
        let mut left_out = Vec::new();
        let mut servers = Vec::new();
        for cache in self.wanted() {
            // The first start shows whether the cache is to be had, and whether millpond knows the command.
            let tried = version_of(cache, &millpond)
                .and_then(|version| ground.site.start(cache).map(|_| version));
            match tried {
                Ok(version) => servers.push(Measured {
                    cache,
                    version,
                    herd: Vec::new(),
                    middle: None,
                    hits: Vec::new(),
                }),
                Err(error) => {
                    let why = format!("{} is left out: {error:#}", cache.name());
                    eprintln!("{why}");
                    left_out.push(why);
                }
            }
        }
        let plain_download = self.herds(&ground, &mut servers)?;
        for server in &mut servers {
            let name = server.cache.name();
            eprintln!("{name}: a range in the middle");
            let middle = ground.middle(server.cache);
            server.middle = Some(middle.with_context(|| format!("{name} fails"))?);
        }
        let folder = self.hits(&ground, &mut servers, &mut left_out)?;
        Ok(Report {
            machine: Machine::describe(&millpond),
            commit: commit(workspace),
            clients: ground.clients,
            origin_bytes_per_second: speed.bytes_per_second,
            origin_latency_seconds: speed.latency.as_secs_f64(),
            plain_download,
            servers,
            folder,
            left_out,
        })
    }

    fn wanted(&self) -> Vec<Cache> {
        match self.servers.is_empty() {
            true => Cache::value_variants().to_vec(),
            false => self.servers.clone(),
        }
    }

    /// Measures all rounds of the herd. Returns the time of a plain download in each round.
    fn herds(&self, ground: &Ground, servers: &mut [Measured]) -> Result<Vec<f64>> {
        let object = Object::FIFTY_MEGABYTES;
        let expected = object.read(0, usize::try_from(object.bytes)?);
        let mut plain_download = Vec::new();
        for round in 0..usize::try_from(self.rounds)? {
            plain_download.push(ground.plain_download(&expected)?);
            for number in rotation(servers.len(), round) {
                let server = &mut servers[number];
                let name = server.cache.name();
                let figures = ground.herd(server.cache, &expected);
                let figures = figures.with_context(|| format!("{name} fails"))?;
                eprintln!(
                    "{name}: {} GETs, {} of {} clients right, {:.1} s{}",
                    figures.origin_requests,
                    figures.right,
                    ground.clients,
                    figures.last_byte.unwrap_or(f64::NAN),
                    match figures.failures.is_empty() {
                        true => String::new(),
                        false => format!(", {:?}", figures.failures),
                    }
                );
                server.herd.push(figures);
            }
        }
        Ok(plain_download)
    }

    /// Measures the hits of each cache. Returns those of a local folder.
    fn hits(
        &self,
        ground: &Ground,
        servers: &mut [Measured],
        left_out: &mut Vec<String>,
    ) -> Result<Vec<measure::HitFigures>> {
        if self.seconds == 0 {
            return Ok(Vec::new());
        }
        if find("wrk").is_none() {
            left_out.push("hits are left out: `apt-get install wrk` installs wrk".to_owned());
            return Ok(Vec::new());
        }
        for server in servers {
            let name = server.cache.name();
            eprintln!("{name}: hits");
            let hits = ground.hits(server.cache);
            server.hits = hits.with_context(|| format!("{name} fails"))?;
        }
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        for object in [
            Object::FIFTY_MEGABYTES,
            Object::HALF_MEGABYTE,
            Object::FOUR_KILOBYTES,
        ] {
            let content = object.read(0, usize::try_from(object.bytes)?);
            fs::write(folder.path().join(object.name), content)?;
        }
        eprintln!("millpond, a local folder: hits");
        match ground.hits_of_folder(folder.path()) {
            Ok(hits) => Ok(hits),
            Err(error) => {
                left_out.push(format!("a local folder is left out: {error:#}"));
                Ok(Vec::new())
            }
        }
    }
}
