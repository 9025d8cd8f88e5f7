//! Runs what measures millpond beside other servers.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// Builds the server and the replay, and runs it.
pub(crate) fn replay(root: &Path, arguments: &[String]) -> Result<()> {
    cargo(root, &["build", "--release", "--package", "millpond"], &[])?;
    let replay = [
        "run",
        "--release",
        "--package",
        "millpond-bench",
        "--",
        "replay",
    ];
    cargo(root, &replay, arguments)
}

fn cargo(root: &Path, command: &[&str], arguments: &[String]) -> Result<()> {
    let status = Command::new("cargo")
        .current_dir(root)
        .args(command)
        .args(arguments)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} fails", command.join(" "));
    Ok(())
}
