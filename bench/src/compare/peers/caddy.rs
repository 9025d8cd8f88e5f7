//! Caddy's file server.

use super::{Peer, Place, Series, Settings};
use crate::program::{find, version};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

struct Caddy {
    program: PathBuf,
    version: String,
}

pub(super) fn settings() -> Result<Settings> {
    let program = find("caddy").context("there is no caddy here")?;
    let version = format!("Caddy {}", version(&program, "version")?);
    Ok(vec![Box::new(Caddy { program, version })])
}

impl Peer for Caddy {
    fn series(&self) -> Series {
        Series::Caddy
    }

    fn setting(&self) -> &'static str {
        ""
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .args(["file-server", "--access-log"])
            .args(["--listen", &place.address.to_string()])
            .arg("--root")
            .arg(place.root)
            .env("HOME", place.scratch)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME");
        Ok(command)
    }
}
