//! static-web-server, a file server on hyper and tokio as millpond is, without a sandbox.

use super::{Peer, Place, Series, Settings};
use crate::program::{find, version};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

struct StaticWebServer {
    program: PathBuf,
    version: String,
}

/// Where `cargo xtask bench --install` puts it, from the workspace's root.
const INSTALLED: &str = "target/bench/bin/static-web-server";

pub(super) fn settings(workspace: &Path) -> Result<Settings> {
    let installed = workspace.join(INSTALLED);
    let program = Some(installed).filter(|file| file.is_file());
    let program = program.or_else(|| find("static-web-server"));
    let program = program.context("`cargo xtask bench --install` builds it")?;
    let version = version(&program, "--version")?;
    Ok(vec![Box::new(StaticWebServer { program, version })])
}

impl Peer for StaticWebServer {
    fn series(&self) -> Series {
        Series::StaticWebServer
    }

    fn setting(&self) -> &'static str {
        ""
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn speaks_http2(&self) -> bool {
        true
    }

    /// It logs requests at the level `info`.
    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .args(["--host", &place.address.ip().to_string()])
            .args(["--port", &place.address.port().to_string()])
            .args(["--log-level", "info", "--log-remote-address", "true"])
            .arg("--root")
            .arg(place.root);
        if let Some(certificate) = place.certificate {
            command
                .args(["--http2", "true", "--http2-tls-cert"])
                .arg(certificate.chain());
            command.arg("--http2-tls-key").arg(certificate.key());
        }
        Ok(command)
    }
}
