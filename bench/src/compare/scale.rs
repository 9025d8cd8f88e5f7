//! Costs of a server for each connection, slow reader and stored file, and its time to start.

use super::idle;
use super::load::sender::Plan;
use super::measure::{Measure, Peak};
use super::media::{File, make_links};
use super::peers::{Peer, Series};
use super::server::{Ground, Held, Server};
use crate::spread::{Spread, rotation};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::fs;
use std::io::{Read, Write};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Name for `--only`.
pub(crate) const NAME: &str = "scale";

/// Costs of one server. A cost that could not be measured is `None`, and the reason was printed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    pub(crate) series: Series,
    /// From the making of its process to the first byte of an answer.
    pub(crate) start_seconds: Option<Spread>,
    pub(crate) idle_connection: Option<Each>,
    pub(crate) slow_reader: Option<Each>,
    pub(crate) few_files: Option<Stored>,
    pub(crate) many_files: Option<Stored>,
}

/// Cost of one of many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Each {
    /// Written by the server's processes.
    pub(crate) process_bytes: f64,
    /// Charged to its sockets.
    pub(crate) kernel_bytes: f64,
}

/// A server with so many files in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Stored {
    pub(crate) files: usize,
    pub(crate) start_seconds: Spread,
    /// Written by its processes, after it was asked [`ASKED_FILES`] times, for as many different files as there are.
    pub(crate) anonymous_bytes: u64,
}

const STARTS: usize = 30;
const STARTS_WITH_FILES: usize = 5;
const IDLE_CONNECTIONS: usize = 2000;

const SLOW_READERS: usize = 200;
/// Bytes that a slow reader reads each second, and the number of seconds.
const SLOW_BYTES: usize = 1024;
const SLOW_SECONDS: u64 = 10;
/// Receive buffer of a slow reader. The kernel doubles it, and the window is about half of that.
const SLOW_RECEIVE_BUFFER: u32 = 8 * 1024;

const FEW_FILES: usize = 10;
const MANY_FILES: usize = 1_000_000;
const QUICK_MANY_FILES: usize = 50_000;
const ASKED_FILES: usize = 10_000;

/// Time that a server is left alone before it is looked at.
const REST: Duration = Duration::from_secs(1);

/// Measures each series in its first setting. The bare loop stores nothing and is left out.
pub(crate) async fn measure(
    measure: &Measure<'_>,
    peers: &[Box<dyn Peer>],
    quick: bool,
) -> Result<Vec<Cost>> {
    eprintln!("scale");
    let mut chosen: Vec<&dyn Peer> = Vec::new();
    for peer in peers {
        let is_known = chosen.iter().any(|other| other.series() == peer.series());
        if !is_known && peer.series() != Series::Bare {
            chosen.push(peer.as_ref());
        }
    }
    let scale = Scale {
        measure,
        starts: if quick { STARTS_WITH_FILES } else { STARTS },
        many_files: if quick { QUICK_MANY_FILES } else { MANY_FILES },
    };
    let mut starts = scale.starts(&chosen).await;
    let mut costs = Vec::new();
    for (peer, start_seconds) in chosen.iter().zip(starts.drain(..)) {
        eprintln!("  {}", peer.title());
        costs.push(Cost {
            series: peer.series(),
            start_seconds,
            idle_connection: told(*peer, scale.idle_connection(*peer).await),
            slow_reader: told(*peer, scale.slow_reader(*peer).await),
            few_files: told(*peer, scale.stored(*peer, FEW_FILES).await).flatten(),
            many_files: told(*peer, scale.stored(*peer, scale.many_files).await).flatten(),
        });
    }
    Ok(costs)
}

/// Returns the value, or prints the reason and returns `None`.
fn told<T>(peer: &dyn Peer, result: Result<T>) -> Option<T> {
    result
        .inspect_err(|error| eprintln!("  {}: {error:#}", peer.title()))
        .ok()
}

struct Scale<'a> {
    measure: &'a Measure<'a>,
    starts: usize,
    many_files: usize,
}

impl Scale<'_> {
    /// Times to the first byte, of each peer: each round starts all of them, once.
    async fn starts(&self, peers: &[&dyn Peer]) -> Vec<Option<Spread>> {
        let mut seconds = vec![Vec::new(); peers.len()];
        for round in 0..self.starts {
            for number in rotation(peers.len(), round) {
                let peer = peers[number];
                let target = peer.target(self.measure.media, File::OneKilobyte);
                let started = first_byte(&self.measure.ground(), peer, &target);
                if let Some((_, took)) = told(peer, started) {
                    seconds[number].push(took.as_secs_f64());
                }
                yield_now().await;
            }
        }
        seconds.into_iter().map(Spread::of).collect()
    }

    async fn idle_connection(&self, peer: &dyn Peer) -> Result<Each> {
        let target = peer.target(self.measure.media, File::OneKilobyte);
        let (server, before) = self.warm(peer, &target).await?;
        let idle = idle::open(server.address, &target, IDLE_CONNECTIONS)?;
        sleep(REST).await;
        let after = server.held()?;
        Ok(Each::of(before, after, idle.len()))
    }

    async fn slow_reader(&self, peer: &dyn Peer) -> Result<Each> {
        let target = peer.target(self.measure.media, File::FiftyMegabytes);
        let small = peer.target(self.measure.media, File::OneKilobyte);
        let (server, before) = self.warm(peer, &small).await?;
        let mut readers = Vec::new();
        for _ in 0..SLOW_READERS {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(SLOW_RECEIVE_BUFFER)?;
            let mut reader = socket.connect(server.address).await?;
            reader
                .write_all(idle::get(server.address, &target).as_bytes())
                .await?;
            readers.push(reader);
        }
        let mut piece = [0; SLOW_BYTES];
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..SLOW_SECONDS {
            seconds.tick().await;
            for reader in &mut readers {
                let read = timeout(idle::LONGEST_ANSWER, reader.read_exact(&mut piece)).await;
                let read = read.context("a slow reader was given nothing")?;
                read.context("a slow reader was cut off")?;
            }
        }
        Ok(Each::of(before, server.held()?, readers.len()))
    }

    /// None of a server that has no files by name.
    async fn stored(&self, peer: &dyn Peer, files: usize) -> Result<Option<Stored>> {
        if !peer.has_named_files() {
            return Ok(None);
        }
        let media = self.measure.media;
        let root = media.root.join(format!("files-{files}"));
        let folder = root.join("media");
        fs::create_dir_all(&folder)?;
        let names = make_links(&folder, &media.read(File::FourKilobytes)?, files)
            .with_context(|| format!("cannot make files in {}", folder.display()))?;
        let mut targets: Vec<String> = names.map(|name| format!("/media/{name}")).collect();
        // Spread over all of them: neighbours could share what a server keeps of a folder.
        let step = (files / ASKED_FILES).max(1);
        targets = targets
            .into_iter()
            .step_by(step)
            .take(ASKED_FILES)
            .collect();
        let first = targets.first().context("no file")?;
        let ground = Ground {
            root: &root,
            cores: self.measure.cores,
            certificate: None,
        };
        let mut seconds = Vec::new();
        let mut last = None;
        for _ in 0..STARTS_WITH_FILES {
            let (server, took) = first_byte(&ground, peer, first)?;
            seconds.push(took.as_secs_f64());
            last = Some(server);
            yield_now().await;
        }
        let server = last.context("it was never started")?;
        let plan = Plan {
            address: server.address,
            connections: 8,
            rate: None,
            requests: ASKED_FILES as u64,
            seconds: 60.0,
            method: "GET".to_owned(),
            targets,
            fields: Vec::new(),
        };
        let outcome = self
            .measure
            .send(&plan, &server, &mut Peak::default())
            .await?;
        ensure!(
            outcome.answers == plan.requests && outcome.errors == 0,
            "it does not give all of {files} files"
        );
        sleep(REST).await;
        Ok(Some(Stored {
            files,
            start_seconds: Spread::of(seconds).context("it was never started")?,
            anonymous_bytes: server.held()?.anonymous_bytes,
        }))
    }

    /// A server that has answered a few hundred requests, and what it holds at rest.
    async fn warm(&self, peer: &dyn Peer, target: &str) -> Result<(Server, Held)> {
        let server = self.measure.ground().start(peer, None)?;
        let mut stream = idle::connect(server.address)?;
        for _ in 0..500 {
            idle::ask(&mut stream, server.address, target)?;
        }
        drop(stream);
        sleep(REST).await;
        let held = server.held()?;
        Ok((server, held))
    }
}

impl Each {
    fn of(before: Held, after: Held, count: usize) -> Self {
        let each = |before: u64, after: u64| (after as f64 - before as f64) / count as f64;
        Each {
            process_bytes: each(before.anonymous_bytes, after.anonymous_bytes),
            kernel_bytes: each(before.socket_bytes, after.socket_bytes),
        }
    }
}

/// Starts a server and asks it for something, as soon as it accepts a connection.
fn first_byte(ground: &Ground, peer: &dyn Peer, target: &str) -> Result<(Server, Duration)> {
    ground.start_and(peer, None, |mut stream| {
        stream.write_all(idle::get(stream.peer_addr()?, target).as_bytes())?;
        stream.read_exact(&mut [0])?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_share_of_what_was_added() {
        let held = |anonymous_bytes, socket_bytes| Held {
            anonymous_bytes,
            socket_bytes,
            ..Held::default()
        };
        let each = Each::of(held(1000, 500), held(3000, 0), 10);
        assert_eq!((each.process_bytes, each.kernel_bytes), (200.0, -50.0));
    }
}
