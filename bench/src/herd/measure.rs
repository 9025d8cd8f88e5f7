//! The measurements of a cache: the herd, the range in the middle, and the hits.

use super::content::Object;
use super::crowd::{Crowd, Served, request_range};
use super::origin::{Origin, OriginLog};
use super::servers::{Cache, Server, Site};
use crate::compare::load::wrk::{self, Wrk};
use crate::cores::on_cores;
use crate::spread::Spread;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Surroundings of the measurements.
pub(crate) struct Ground<'a> {
    pub(crate) site: Site<'a>,
    pub(crate) origin: &'a Origin,
    pub(crate) load_cores: &'a [usize],
    pub(crate) clients: usize,
    /// Seconds of load of each object that is a hit.
    pub(crate) seconds: u64,
}

/// Figures of a herd. Times are seconds from the moment when all requests were sent.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HerdFigures {
    pub(crate) origin_requests: usize,
    pub(crate) origin_bytes: u64,
    /// Time to the first byte of a client: the median one, and the 99th percentile.
    pub(crate) first_byte_median: Option<f64>,
    pub(crate) first_byte_p99: Option<f64>,
    pub(crate) last_byte_median: Option<f64>,
    /// Time until the last client has all.
    pub(crate) last_byte: Option<f64>,
    pub(crate) cpu_seconds: f64,
    /// Sum of the processes' peaks.
    pub(crate) peak_resident_bytes: u64,
    /// Maximum of anonymous memory, of samples.
    pub(crate) peak_anonymous_bytes: u64,
    /// Clients that got all bytes, and no wrong one.
    pub(crate) right: usize,
    pub(crate) failures: BTreeMap<&'static str, usize>,
    pub(crate) curves: Curves,
}

/// Moments of a herd, for its picture.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Curves {
    /// When each request came to the origin.
    pub(crate) requests: Vec<f64>,
    /// When the origin sent bytes, and how many.
    pub(crate) sent: Vec<(f64, u64)>,
    /// When each client had its first byte, in order.
    pub(crate) first_bytes: Vec<f64>,
    /// When each client had all, in order.
    pub(crate) last_bytes: Vec<f64>,
}

/// Figures of a range in the middle of the object of ten gigabytes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MiddleFigures {
    /// Status and time of the response. `None` if there is none in time.
    pub(crate) answer: Option<(u16, f64)>,
    pub(crate) is_right: bool,
    pub(crate) origin_requests: usize,
    pub(crate) origin_bytes: u64,
}

/// Figures of hits of one object.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HitFigures {
    pub(crate) object: &'static str,
    pub(crate) answers_per_second: f64,
    pub(crate) cpu_microseconds: f64,
    /// Share of the cores that the server had. Below nine tenths, the load was the slower one.
    pub(crate) busy: f64,
    /// Requests without a response.
    pub(crate) failed: u64,
    /// Bytes that the origin sent meanwhile.
    pub(crate) origin_bytes: u64,
}

/// Time after which a client of the herd gives up.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time after which the client of the range gives up.
pub(crate) const RANGE_PATIENCE: Duration = Duration::from_secs(10);

/// Time that a cache has to end what it began for the range.
const RANGE_REST: Duration = Duration::from_secs(1);

/// Time between two looks at the memory of a server.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// Objects whose hits are measured, with the number of connections.
const HITS: [(Object, usize); 3] = [
    (Object::FIFTY_MEGABYTES, 8),
    (Object::HALF_MEGABYTE, 32),
    (Object::FOUR_KILOBYTES, 64),
];

impl Ground<'_> {
    /// Downloads the object of the herd from the origin by one client, and returns the time in seconds.
    pub(crate) fn plain_download(&self, expected: &[u8]) -> Result<f64> {
        self.origin.take_log();
        let served = self.crowd(self.site.origin, 1, expected)?;
        let time = served.clients.first().and_then(|client| client.last_byte);
        time.context("the origin does not serve the object")
    }

    fn crowd(
        &self,
        address: std::net::SocketAddr,
        clients: usize,
        expected: &[u8],
    ) -> Result<Served> {
        let crowd = Crowd {
            address,
            target: &Object::FIFTY_MEGABYTES.target(),
            clients,
            expected,
            patience: PATIENCE,
        };
        on_cores(self.load_cores, || crowd.run())?
    }

    /// Lets the herd loose on an empty cache.
    pub(crate) fn herd(&self, cache: Cache, expected: &[u8]) -> Result<HerdFigures> {
        let mut server = self.site.start(cache)?;
        self.origin.take_log();
        let before = server.cpu_seconds()?;
        let (served, peak_anonymous_bytes) = while_looking(&server, || {
            self.crowd(server.address, self.clients, expected)
        })?;
        let cpu_seconds = server.cpu_seconds()? - before;
        let memory = server.memory()?;
        server.check_alive()?;
        let log = self.origin.take_log();
        if served.clients.iter().any(|client| client.failure.is_some()) {
            eprintln!("{}: clients failed{}", cache.name(), server.last_words());
        }
        Ok(figures(
            &served,
            &log,
            cpu_seconds,
            memory.iter().map(|memory| memory.peak_bytes).sum(),
            peak_anonymous_bytes,
        ))
    }

    /// Requests 100 bytes in the middle of the object of ten gigabytes from an empty cache.
    pub(crate) fn middle(&self, cache: Cache) -> Result<MiddleFigures> {
        let object = Object::TEN_GIGABYTES;
        let first = object.bytes / 2;
        let server = self.site.start(cache)?;
        self.origin.take_log();
        let began = Instant::now();
        let answer = request_range(
            server.address,
            &object.target(),
            (first, first + 99),
            RANGE_PATIENCE,
        )?;
        let seconds = began.elapsed().as_secs_f64();
        // Some caches fetch on after the response.
        thread::sleep(RANGE_REST);
        let log = self.origin.take_log();
        Ok(MiddleFigures {
            is_right: answer
                .as_ref()
                .is_some_and(|(status, body)| *status == 206 && *body == object.read(first, 100)),
            answer: answer.map(|(status, _)| (status, seconds)),
            origin_requests: log.requests.len(),
            origin_bytes: log.sent_bytes(),
        })
    }

    /// Measures the hits of a cache.
    pub(crate) fn hits(&self, cache: Cache) -> Result<Vec<HitFigures>> {
        self.hits_of(self.site.start(cache)?)
    }

    /// Measures the same objects in a local folder, served by millpond.
    pub(crate) fn hits_of_folder(&self, folder: &std::path::Path) -> Result<Vec<HitFigures>> {
        self.hits_of(self.site.start_over(folder)?)
    }

    fn hits_of(&self, mut server: Server) -> Result<Vec<HitFigures>> {
        let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
        let mut hits = Vec::new();
        for (object, connections) in HITS {
            let target = object.target();
            let expected = object.read(0, usize::try_from(object.bytes)?);
            // The first request fills the cache, and the second one is a hit.
            for _ in 0..2 {
                let crowd = Crowd {
                    address: server.address,
                    target: &target,
                    clients: 1,
                    expected: &expected,
                    patience: PATIENCE,
                };
                let served = crowd.run()?;
                let failure = served.clients.first().and_then(|client| client.failure);
                ensure!(failure.is_none(), "{}: {failure:?}", object.name);
            }
            self.origin.take_log();
            let wrk = Wrk {
                address: server.address,
                target: &target,
                fields: &[],
                connections,
                seconds: self.seconds,
            };
            let mut command = wrk.command(scratch.path())?;
            let before = server.cpu_seconds()?;
            let output = on_cores(self.load_cores, || command.output())?;
            let output = output.context("cannot run wrk; `apt-get install wrk` installs it")?;
            let cpu_seconds = server.cpu_seconds()? - before;
            let outcome = wrk::outcome(&String::from_utf8_lossy(&output.stdout))?;
            server.check_alive()?;
            ensure!(
                outcome.errors == 0,
                "{}: {} errors",
                object.name,
                outcome.errors
            );
            // Of large objects few are whole in the time, so bytes are counted.
            let answers = outcome.bytes as f64 / object.bytes as f64;
            let answers = match object.bytes {
                100_000.. => answers,
                _ => outcome.answers as f64,
            };
            ensure!(answers > 0.0, "{}: no response", object.name);
            let cores = self.site.cores.len().max(1);
            hits.push(HitFigures {
                object: object.name,
                answers_per_second: answers / outcome.seconds,
                cpu_microseconds: cpu_seconds / answers * 1e6,
                busy: cpu_seconds / outcome.seconds / cores as f64,
                failed: outcome.failed,
                origin_bytes: self.origin.sent_bytes(),
            });
        }
        Ok(hits)
    }
}

/// Does something while another thread looks at the memory of a server. Returns the maximum of anonymous memory as well.
fn while_looking<T>(server: &Server, act: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let is_over = AtomicBool::new(false);
    let look = || {
        let mut most = 0;
        while !is_over.load(Ordering::Acquire) {
            // A server that is gone fails the measurement elsewhere.
            if let Ok(memory) = server.memory() {
                most = most.max(memory.iter().map(|memory| memory.anonymous_bytes).sum());
            }
            thread::sleep(LOOKS_EVERY);
        }
        most
    };
    thread::scope(|scope| {
        let looking = scope.spawn(look);
        let done = act();
        is_over.store(true, Ordering::Release);
        let most = looking.join();
        let most = most.map_err(|_| anyhow::anyhow!("the thread that looks at memory panicked"))?;
        Ok((done?, most))
    })
}

fn figures(
    served: &Served,
    log: &OriginLog,
    cpu_seconds: f64,
    peak_resident_bytes: u64,
    peak_anonymous_bytes: u64,
) -> HerdFigures {
    let seconds = |at: &Instant| at.saturating_duration_since(served.began).as_secs_f64();
    let sorted = |time: fn(&super::crowd::ClientOutcome) -> Option<f64>| {
        let mut times: Vec<f64> = served.clients.iter().filter_map(time).collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let first_bytes = sorted(|client| client.first_byte);
    let last_bytes = sorted(|client| client.last_byte);
    let median = |times: &[f64]| Some(Spread::of(times.iter().copied())?.median);
    let mut failures = BTreeMap::new();
    for client in &served.clients {
        if let Some(failure) = client.failure {
            *failures.entry(failure).or_default() += 1;
        }
    }
    let is_whole = last_bytes.len() == served.clients.len();
    HerdFigures {
        origin_requests: log.requests.len(),
        origin_bytes: log.sent_bytes(),
        first_byte_median: median(&first_bytes),
        first_byte_p99: percentile(&first_bytes, 99),
        last_byte_median: median(&last_bytes),
        last_byte: last_bytes.last().copied().filter(|_| is_whole),
        cpu_seconds,
        peak_resident_bytes,
        peak_anonymous_bytes,
        right: last_bytes.len(),
        failures,
        curves: Curves {
            requests: log.requests.iter().map(seconds).collect(),
            sent: log
                .sent
                .iter()
                .map(|(at, bytes)| (seconds(at), *bytes))
                .collect(),
            first_bytes,
            last_bytes,
        },
    }
}

/// Returns the least of sorted values that so many percent of them do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_of_the_list() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(percentile(&values, 99), Some(990.0));
        assert_eq!(percentile(&values[..1], 99), Some(1.0));
        assert_eq!(percentile(&[], 99), None);
    }
}
