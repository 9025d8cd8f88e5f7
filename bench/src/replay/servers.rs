//! The servers that are measured: each is started as a child on a free port, and ended whatever happens.

use crate::process::{Running, last_words};
use crate::replay::changes::Files;
use crate::replay::s3::S3Server;
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// millpond.
    Millpond,
    /// millpond over an S3 server, with an empty cache.
    MillpondS3,
    /// The original's way: file streams piped into answers.
    Express,
    /// The same with the handlers for error, end and close that its report proposed.
    ExpressHandlers,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Millpond => "millpond",
            Kind::MillpondS3 => "millpond-s3",
            Kind::Express => "express",
            Kind::ExpressHandlers => "express-handlers",
        }
    }
}

/// Where the servers' programs are, and what they serve.
pub(crate) struct Setup {
    pub(crate) millpond: PathBuf,
    /// The folder of `server.js`.
    pub(crate) express: PathBuf,
    pub(crate) store: PathBuf,
    /// Object storage with the same media, where it is needed.
    pub(crate) s3: Option<S3Server>,
    /// Where the servers' standard errors go.
    pub(crate) logs: PathBuf,
    /// Files of the changes that are made of millpond, if there are any.
    pub(crate) changes: Option<Files>,
}

/// How long a server may take to say where it listens.
const LONGEST_START: Duration = Duration::from_secs(30);

impl Setup {
    /// Starts a server and waits until it listens.
    pub(crate) fn start(&self, kind: Kind) -> Result<Server> {
        let (mut command, has_admin) = match kind {
            Kind::Millpond => self.millpond_command(self.store.as_os_str())?,
            Kind::MillpondS3 => {
                let bucket = self.store.file_name().context("the store has no name")?;
                let url = format!("s3://{}", bucket.display());
                let (mut command, has_admin) = self.millpond_command(url.as_ref())?;
                command.arg("--cache-dir").arg(self.logs.join("cache"));
                let s3 = self.s3.as_ref().context("no S3 server was started")?;
                s3.tell(&mut command);
                (command, has_admin)
            }
            Kind::Express => (self.express_command(), false),
            Kind::ExpressHandlers => {
                let mut command = self.express_command();
                command.env("HANDLERS", "1");
                (command, false)
            }
        };
        let log = self.logs.join(format!("{}.log", kind.name()));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).context("cannot make a log")?)
            .spawn()
            .with_context(|| format!("cannot start {}", kind.name()))?;
        let mut child = Running(child);
        let stdout = child.0.stdout.take().context("a child without output")?;
        let found = wait_for_addresses(&addresses(stdout), has_admin);
        let (address, admin) = found.with_context(|| {
            let said = last_words(&log);
            format!("{} does not say where it listens{said}", kind.name())
        })?;
        ensure!(
            address.ip().is_loopback(),
            "{} listens on {address}, which is not on this machine alone",
            kind.name()
        );
        Ok(Server {
            child,
            log,
            address,
            admin,
        })
    }

    fn millpond_command(&self, media: &OsStr) -> Result<(Command, bool)> {
        let help = Command::new(&self.millpond)
            .args(["serve", "--help"])
            .output()
            .with_context(|| format!("cannot run {}", self.millpond.display()))?;
        let has_admin = String::from_utf8_lossy(&help.stdout).contains("--admin");
        let mut command = Command::new(&self.millpond);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"MILLPOND_") {
                command.env_remove(name);
            }
        }
        command.arg("serve").arg(media);
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        if has_admin {
            command.args(["--admin", "127.0.0.1:0"]);
        } else {
            eprintln!("this millpond has no --admin: its own figures are left out");
        }
        if let Some(files) = &self.changes {
            files.apply(&mut command)?;
        }
        Ok((command, has_admin))
    }

    fn express_command(&self) -> Command {
        let mut command = Command::new("node");
        command
            .arg(self.express.join("server.js"))
            .arg(&self.store)
            .env("NODE_ENV", "production")
            .env_remove("NODE_OPTIONS")
            .env_remove("PORT")
            .env_remove("HANDLERS");
        command
    }
}

/// A running server; dropped, it is ended.
pub(crate) struct Server {
    child: Running,
    log: PathBuf,
    pub(crate) address: SocketAddr,
    /// Where millpond tells of its memory.
    pub(crate) admin: Option<SocketAddr>,
}

impl Server {
    pub(crate) fn process_id(&self) -> u32 {
        self.child.0.id()
    }

    /// The end of what it wrote to its standard error.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.log)
    }
}

/// An address that a server announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    Listening(SocketAddr),
    Admin(SocketAddr),
}

/// Reads a line such as `  listening  http://127.0.0.1:8080`.
fn parse_announcement(line: &str) -> Option<Announced> {
    let mut words = line.split_whitespace();
    let announced = match words.next()? {
        "listening" => Announced::Listening,
        "admin" => Announced::Admin,
        _ => return None,
    };
    let address = words.next()?.strip_prefix("http://")?;
    Some(announced(address.trim_end_matches('/').parse().ok()?))
}

/// Reads a server's output to its end, so that it never waits for a reader, and passes on what it announces.
fn addresses(stdout: ChildStdout) -> Receiver<Announced> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(announced) = parse_announcement(&line) {
                // When nobody waits any more, the output is read all the same.
                let _ = sender.send(announced);
            }
        }
    });
    receiver
}

fn wait_for_addresses(
    announced: &Receiver<Announced>,
    has_admin: bool,
) -> Result<(SocketAddr, Option<SocketAddr>)> {
    let deadline = Instant::now() + LONGEST_START;
    let (mut listening, mut admin) = (None, None);
    loop {
        match announced.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Announced::Listening(address)) => listening = Some(address),
            Ok(Announced::Admin(address)) => admin = Some(address),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("it takes too long"),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("it ended"),
        }
        if let Some(listening) = listening
            && admin.is_some() == has_admin
        {
            return Ok((listening, admin));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_read_from_announcements() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        for (line, announced) in [
            (
                "  listening  http://127.0.0.1:8080",
                Some(Announced::Listening(at(8080))),
            ),
            (
                "  admin      http://127.0.0.1:9",
                Some(Announced::Admin(at(9))),
            ),
            (
                "listening http://127.0.0.1:41/",
                Some(Announced::Listening(at(41))),
            ),
            ("  files      http://127.0.0.1:8080/media/<path>", None),
            ("  listening  somewhere", None),
            ("  listening", None),
            ("millpond 0.1.0", None),
            ("", None),
        ] {
            assert_eq!(parse_announcement(line), announced, "{line}");
        }
    }

    #[test]
    fn a_server_is_up_when_it_has_said_all_its_addresses() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (sender, receiver) = mpsc::channel();
        sender.send(Announced::Listening(at(1))).unwrap();
        assert_eq!(wait_for_addresses(&receiver, false).unwrap(), (at(1), None));
        sender.send(Announced::Listening(at(1))).unwrap();
        sender.send(Announced::Admin(at(2))).unwrap();
        let found = wait_for_addresses(&receiver, true).unwrap();
        assert_eq!(found, (at(1), Some(at(2))));
        drop(sender);
        assert!(wait_for_addresses(&receiver, false).is_err());
    }
}
