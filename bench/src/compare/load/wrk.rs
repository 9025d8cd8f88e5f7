//! `wrk`, which keeps connections as busy as the server lets it.

use super::Outcome;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Arguments of wrk.
pub(crate) struct Wrk<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) target: &'a str,
    pub(crate) fields: &'a [(String, String)],
    pub(crate) connections: usize,
    pub(crate) seconds: u64,
}

/// Has wrk say in JSON what it counted. A script without `request` or `response` costs nothing for a request.
const SCRIPT: &str = r#"
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\n{"requests":%d,"microseconds":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
"#;

/// Seconds after which an answer is given up.
const TIMEOUT: &str = "30s";

impl Wrk<'_> {
    /// The command; its script is put into a folder.
    pub(crate) fn command(&self, folder: &Path) -> Result<Command> {
        let script = folder.join("wrk.lua");
        fs::write(&script, SCRIPT).context("cannot write wrk's script")?;
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--timeout", TIMEOUT]);
        command
            .arg("--connections")
            .arg(self.connections.to_string());
        command.arg("--duration").arg(format!("{}s", self.seconds));
        command.arg("--script").arg(script);
        for (name, value) in self.fields {
            command.arg("--header").arg(format!("{name}: {value}"));
        }
        command.arg(format!("http://{}{}", self.address, self.target));
        Ok(command)
    }
}

/// Output of [`SCRIPT`].
#[derive(Deserialize)]
struct Said {
    requests: u64,
    microseconds: u64,
    bytes: u64,
    connect: u64,
    read: u64,
    write: u64,
    status: u64,
    timeout: u64,
}

/// Reads what wrk said.
pub(crate) fn outcome(said: &str) -> Result<Outcome> {
    let line = said.lines().rfind(|line| line.starts_with('{'));
    let said: Said = serde_json::from_str(line.context("wrk counted nothing")?)?;
    Ok(Outcome {
        answers: said.requests,
        failed: said.connect + said.read + said.write + said.timeout,
        errors: said.status,
        seconds: said.microseconds as f64 / 1e6,
        bytes: said.bytes,
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_wrk_says_is_understood() {
        let said = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n\
            {\"requests\":1000,\"microseconds\":1000500,\"bytes\":5000,\"connect\":1,\"read\":2,\"write\":3,\
            \"status\":4,\"timeout\":5}\n";
        let expected = Outcome {
            answers: 1000,
            failed: 11,
            errors: 4,
            seconds: 1.0005,
            bytes: 5000,
            ..Outcome::default()
        };
        assert_eq!(outcome(said).unwrap(), expected);
        assert!(outcome("unable to connect").is_err());
    }
}
