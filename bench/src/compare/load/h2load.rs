//! `h2load`, for HTTP/2 over TLS, with several requests under way on each connection, and for HTTP/1.1 beside wrk.

use super::Outcome;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::process::Command;

/// Arguments of h2load.
pub(crate) struct H2load<'a> {
    pub(crate) url: &'a str,
    pub(crate) version: Version,
    pub(crate) connections: usize,
    pub(crate) seconds: u64,
}

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// One request after the other on a connection.
    Http1,
    /// Several at once on a connection.
    Http2,
}

/// Requests under way on one connection of HTTP/2.
const STREAMS: &str = "8";

impl H2load<'_> {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("h2load");
        match self.version {
            Version::Http1 => command.args(["--h1", "--max-concurrent-streams=1"]),
            Version::Http2 => command.args(["--max-concurrent-streams", STREAMS]),
        };
        command
            .arg("--threads=1")
            .arg(format!("--clients={}", self.connections))
            .arg(format!("--duration={}", self.seconds))
            .arg(self.url);
        command
    }
}

/// Reads what h2load said of so many seconds.
pub(crate) fn outcome(said: &str, seconds: u64) -> Result<Outcome> {
    let line = |start: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(start));
        line.with_context(|| format!("h2load does not tell its {start}"))
    };
    let requests = line("requests: ")?;
    let statuses = line("status codes: ")?;
    let traffic = line("traffic: ")?;
    let mut by_status = BTreeMap::new();
    for class in [2, 3, 4, 5] {
        // As classes are all that it tells: 200 stands for all of 2xx.
        let counted = number_before(statuses, &format!("{class}xx"))?;
        if counted > 0 {
            by_status.insert(class * 100, counted);
        }
    }
    // As in `52.71MB (55267272) total`.
    let bytes = traffic.split(['(', ')']).nth(1);
    let bytes = bytes.context("h2load does not tell its bytes")?.parse()?;
    Ok(Outcome {
        answers: number_before(requests, "succeeded")?,
        failed: number_before(requests, "errored")? + number_before(requests, "timeout")?,
        errors: number_before(statuses, "4xx")? + number_before(statuses, "5xx")?,
        by_status,
        seconds: seconds as f64,
        bytes,
        latency: None,
    })
}

/// The number before a word, as in `12 succeeded, 0 failed`.
fn number_before(text: &str, word: &str) -> Result<u64> {
    let part = text
        .split(',')
        .map(str::trim)
        .find_map(|part| part.strip_suffix(word));
    let part = part.with_context(|| format!("h2load does not tell what {word}"))?;
    Ok(part.trim().parse()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_h2load_says_is_understood() {
        let said = "finished in 2.00s, 6172.50 req/s, 26.30MB/s\n\
            requests: 12345 total, 12400 started, 12345 done, 12340 succeeded, 5 failed, 3 errored, 2 timeout\n\
            status codes: 12340 2xx, 1 3xx, 4 4xx, 0 5xx\n\
            traffic: 52.71MB (55267272) total, 1.2MB (1234567) headers (space savings 90.0%), 48MB (50000000) data\n";
        let expected = Outcome {
            answers: 12340,
            failed: 5,
            errors: 4,
            by_status: BTreeMap::from([(200, 12340), (300, 1), (400, 4)]),
            seconds: 2.0,
            bytes: 55_267_272,
            latency: None,
        };
        assert_eq!(outcome(said, 2).unwrap(), expected);
        assert!(outcome("could not connect", 2).is_err());
    }
}
