//! One server under the load of one row: started, checked, warmed up, loaded and looked at, ended.

use super::check::{Checked, check};
use super::idle;
use super::load::h2load::{self, H2load, Version};
use super::load::sender::Plan;
use super::load::wrk::{self, Wrk};
use super::load::{Latency, Outcome};
use super::media::Media;
use super::peers::{Peer, Recorded};
use super::rows::{Load, Row};
use super::server::{Ground, Server};
use super::tls::{self, Certificate};
use crate::cores::{Cores, on_cores};
use crate::program::find;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::env;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval};

/// Figures of a server in one round of a row.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    /// Answers a second.
    pub(crate) answers_per_second: f64,
    pub(crate) answers: u64,
    /// Requests that had no answer.
    pub(crate) failed: u64,
    /// Answers of 4xx and 5xx where the row asks for none.
    pub(crate) errors: u64,
    /// Bytes of one answer, head and body.
    pub(crate) answer_bytes: u64,
    /// CPU time of the server.
    pub(crate) cpu_seconds_per_million: f64,
    /// Its share of the cores that it had: below nine tenths in a closed loop, the load was the slower one.
    pub(crate) busy: f64,
    /// The most that its processes and its sockets held together.
    pub(crate) peak_held_bytes: u64,
    /// How much of that was the processes' own.
    pub(crate) peak_anonymous_bytes: u64,
    /// The most that was resident, files' pages included.
    pub(crate) peak_resident_bytes: u64,
    /// Where the load was at a rate.
    pub(crate) latency: Option<Latency>,
}

/// How rows are measured.
pub(crate) struct Measure<'a> {
    pub(crate) media: &'a Media,
    pub(crate) cores: &'a Cores,
    pub(crate) seconds: u64,
    /// Files that are asked for once.
    pub(crate) cold_files: usize,
}

/// For how long a server is warmed up, at a quarter of the seconds that count, and a second at most.
const LONGEST_WARM_UP: f64 = 1.0;

/// Time between two looks at what a server holds.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// Files with at least so many bytes are counted by their bytes, since few of them are whole in the time.
const LARGE_BYTES: u64 = 100_000;

impl Measure<'_> {
    /// Takes one answer of a peer as it is, for the bare loop.
    pub(crate) fn record(&self, peer: &dyn Peer, row: &Row) -> Result<Recorded> {
        let server = self.ground().start(peer, None)?;
        Ok(check(peer, server.address, row, self.media)?.recorded)
    }

    /// Measures a peer in a row.
    pub(crate) async fn measure(
        &self,
        peer: &dyn Peer,
        row: &Row,
        recorded: Option<&Recorded>,
    ) -> Result<Figures> {
        match row.load {
            Load::Http2 => return self.measure_encrypted(peer, row, Version::Http2).await,
            Load::Tls => return self.measure_encrypted(peer, row, Version::Http1).await,
            _ => {}
        }
        let mut server = self.ground().start(peer, recorded)?;
        let checked = check(peer, server.address, row, self.media)?;
        let _idle = idle::open(server.address, &checked.target, row.idle_connections)?;
        let warm_up = (self.seconds as f64 / 4.0).min(LONGEST_WARM_UP);
        let mut warm = self.plan(server.address, row, &checked)?;
        warm.seconds = warm_up;
        if row.load == Load::EachOnce {
            // Those that count must not have been asked for.
            warm.targets = vec![checked.target.clone()];
            warm.requests = u64::MAX;
        }
        let mut peak = Peak::default();
        self.send(&warm, &server, &mut peak).await?;
        let before = server.cpu_seconds()?;
        let outcome = match row.load {
            // wrk waits for the body that a HEAD has not.
            Load::Closed if row.asked.method() == "GET" => {
                self.wrk(row, &checked, &server, &mut peak).await?
            }
            Load::ByH2load => {
                let h2load = H2load {
                    url: &format!("http://{}{}", server.address, checked.target),
                    version: Version::Http1,
                    connections: row.connections,
                    seconds: self.seconds,
                };
                self.h2load(&h2load, &server, &mut peak).await?
            }
            _ => {
                let plan = self.plan(server.address, row, &checked)?;
                self.send(&plan, &server, &mut peak).await?
            }
        };
        server.check_alive()?;
        let cpu = server.cpu_seconds()? - before;
        ensure!(outcome.answers > 0, "no answer came");
        Ok(self.figures(row, checked.answer_bytes, outcome, cpu, peak))
    }

    /// Measures a peer in a row over TLS.
    async fn measure_encrypted(
        &self,
        peer: &dyn Peer,
        row: &Row,
        version: Version,
    ) -> Result<Figures> {
        let certificate = Certificate::make()?;
        let ground = Ground {
            certificate: Some(&certificate),
            ..self.ground()
        };
        let mut server = ground.start(peer, None)?;
        let file = row.asked.file().context("a row over TLS asks for a file")?;
        let url = tls::url(server.address, &peer.target(self.media, file));
        tls::check(&url, row, self.media)?;
        let mut h2load = H2load {
            url: &url,
            version,
            connections: row.connections,
            seconds: 1,
        };
        let mut peak = Peak::default();
        self.h2load(&h2load, &server, &mut peak).await?;
        h2load.seconds = self.seconds;
        let before = server.cpu_seconds()?;
        let outcome = self.h2load(&h2load, &server, &mut peak).await?;
        server.check_alive()?;
        let cpu = server.cpu_seconds()? - before;
        ensure!(outcome.answers > 0, "no answer came");
        Ok(self.figures(row, file.bytes(), outcome, cpu, peak))
    }

    pub(super) fn ground(&self) -> Ground<'_> {
        Ground {
            root: &self.media.root,
            cores: self.cores,
            certificate: None,
        }
    }

    fn figures(
        &self,
        row: &Row,
        answer_bytes: u64,
        outcome: Outcome,
        cpu: f64,
        peak: Peak,
    ) -> Figures {
        let answers = if row.asked.method() == "GET" && answer_bytes >= LARGE_BYTES {
            outcome.bytes as f64 / answer_bytes as f64
        } else {
            outcome.answers as f64
        };
        let cores = self.cores.servers.len().max(1) as f64;
        Figures {
            answers_per_second: answers / outcome.seconds,
            answers: outcome.answers,
            failed: outcome.failed,
            errors: if row.asked.status() >= 400 {
                0
            } else {
                outcome.errors
            },
            answer_bytes,
            cpu_seconds_per_million: cpu / answers * 1e6,
            busy: cpu / outcome.seconds / cores,
            peak_held_bytes: peak.held_bytes,
            peak_anonymous_bytes: peak.anonymous_bytes,
            peak_resident_bytes: peak.resident_bytes,
            latency: outcome.latency.filter(|_| !row.load.is_closed()),
        }
    }

    fn plan(&self, address: SocketAddr, row: &Row, checked: &Checked) -> Result<Plan> {
        let seconds = self.seconds as f64;
        let mut plan = Plan {
            address,
            connections: row.connections,
            rate: None,
            requests: u64::MAX,
            seconds,
            method: row.asked.method().to_owned(),
            targets: vec![checked.target.clone()],
            fields: checked.fields.clone(),
        };
        match row.load {
            Load::Closed | Load::ByH2load | Load::BySender | Load::Http2 | Load::Tls => {}
            Load::AtRate(rate) => {
                plan.rate = Some(f64::from(rate));
                plan.requests = u64::from(rate) * self.seconds;
            }
            Load::EachOnce => {
                plan.targets = self.media.never_asked(self.cold_files)?;
                plan.requests = self.cold_files as u64;
                // However long it takes.
                plan.seconds = 3600.0;
            }
        }
        Ok(plan)
    }

    /// Has `send` carry out a plan.
    pub(super) async fn send(
        &self,
        plan: &Plan,
        server: &Server,
        peak: &mut Peak,
    ) -> Result<Outcome> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("send");
        let said = self
            .run(command, &serde_json::to_vec(plan)?, server, peak)
            .await?;
        serde_json::from_slice(&said).context("the load tells what is not understood")
    }

    async fn h2load(
        &self,
        h2load: &H2load<'_>,
        server: &Server,
        peak: &mut Peak,
    ) -> Result<Outcome> {
        let command = h2load.command().into();
        let said = self.run(command, b"", server, peak).await?;
        h2load::outcome(&String::from_utf8_lossy(&said), h2load.seconds)
    }

    async fn wrk(
        &self,
        row: &Row,
        checked: &Checked,
        server: &Server,
        peak: &mut Peak,
    ) -> Result<Outcome> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let wrk = Wrk {
            address: server.address,
            target: &checked.target,
            fields: &checked.fields,
            connections: row.connections,
            seconds: self.seconds,
        };
        let command = wrk.command(folder.path())?.into();
        let said = self.run(command, b"", server, peak).await?;
        wrk::outcome(&String::from_utf8_lossy(&said))
    }

    /// Runs a load on its cores to its end, looking at the server the while, and gives what it said.
    async fn run(
        &self,
        mut command: Command,
        input: &[u8],
        server: &Server,
        peak: &mut Peak,
    ) -> Result<Vec<u8>> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let mut child =
            on_cores(&self.cores.load, || command.spawn())?.context("cannot start the load")?;
        let mut stdin = child.stdin.take().context("a child without input")?;
        stdin.write_all(input).await?;
        drop(stdin);
        let ended = child.wait_with_output();
        let mut looks = interval(LOOKS_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tokio::pin!(ended);
        let output = loop {
            tokio::select! {
                output = &mut ended => break output?,
                _ = looks.tick() => peak.look(server)?,
            }
        };
        ensure!(
            output.status.success(),
            "the load fails with {}",
            output.status
        );
        Ok(output.stdout)
    }
}

/// The most that a server held at any look.
#[derive(Debug, Default)]
pub(crate) struct Peak {
    pub(crate) held_bytes: u64,
    pub(crate) anonymous_bytes: u64,
    pub(crate) resident_bytes: u64,
}

impl Peak {
    pub(crate) fn look(&mut self, server: &Server) -> Result<()> {
        let held = server.held()?;
        self.held_bytes = self
            .held_bytes
            .max(held.anonymous_bytes + held.socket_bytes);
        self.anonymous_bytes = self.anonymous_bytes.max(held.anonymous_bytes);
        self.resident_bytes = self.resident_bytes.max(held.peak_resident_bytes);
        Ok(())
    }
}

/// Why a peer cannot be measured in a row at all; none where it can.
pub(crate) fn unfit(peer: &dyn Peer, row: &Row) -> Option<String> {
    match row.load {
        Load::EachOnce if !peer.has_named_files() => Some("it has no files by name".to_owned()),
        Load::Http2 | Load::Tls if !peer.speaks_http2() => Some("it has no TLS here".to_owned()),
        Load::Http2 | Load::Tls => {
            tls::missing(find).map(|program| format!("there is no {program} here"))
        }
        Load::ByH2load if find("h2load").is_none() => Some("there is no h2load here".to_owned()),
        _ => None,
    }
}
