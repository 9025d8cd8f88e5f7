//! `millpond health`.

use crate::admin_client::{self, AdminResponse};
use crate::listen::ListenAddress;
use anyhow::{Result, bail};
use clap::Args;
use std::io::{self, Write};
use std::process::ExitCode;

/// Maximum bytes of the response that are read. A reason is one line.
const RESPONSE_BYTES: usize = 4096;

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Address of the server's admin listener, as in its option --admin.
    #[arg(
        value_name = "ADDR",
        default_value = "127.0.0.1:8079",
        env = "MILLPOND_ADMIN"
    )]
    admin: ListenAddress,
}

impl Health {
    /// Prints `ready`, or the reason why the server is not.
    ///
    /// The exit code is never 2: a health check of Docker must not use it.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let response = admin_client::send(&self.admin, "GET", "/readyz", None, RESPONSE_BYTES);
        match response.and_then(|response| judge(&response)) {
            Ok(()) => {
                writeln!(io::stdout(), "ready")?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => {
                writeln!(io::stderr(), "millpond: {}: {error:#}", self.admin)?;
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

/// Reads a response: the status, and the first line of the content as the reason.
fn judge(response: &AdminResponse) -> Result<()> {
    let reason = response.content.lines().next().unwrap_or_default();
    match response.status {
        200 => Ok(()),
        503 => bail!("not ready: {}", reason.escape_debug()),
        status => bail!("status {status}: this is not millpond's admin listener"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_response_is_ready_or_says_why_not() {
        let judged = |status, content: &str| {
            judge(&AdminResponse {
                status,
                content: content.to_owned(),
            })
        };
        assert!(judged(200, "ready\n").is_ok());
        for (status, content, reason) in [
            (503, "shutting down\n", "not ready: shutting down"),
            (503, "\u{1b}[2J\n", "not ready: \\u{1b}[2J"),
            (404, "", "status 404"),
        ] {
            let error = judged(status, content).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
