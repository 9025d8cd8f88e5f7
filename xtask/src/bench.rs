//! Runs what measures millpond beside other servers.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// Builds the server and what measures it, and runs that: `compare` and `herd` with the program as it
/// is released, or `replay`.
pub(crate) fn run(root: &Path, command: &str, arguments: &[String]) -> Result<()> {
    let profile = match command {
        "compare" | "herd" => "dist",
        _ => "release",
    };
    let build = ["build", "--profile", profile, "--package", "millpond-cli"];
    cargo(root, &build, &[])?;
    let run = [
        "run",
        "--release",
        "--package",
        "millpond-bench",
        "--",
        command,
    ];
    cargo(root, &run, arguments)
}

/// Builds static-web-server, which no distribution has, to where `compare` looks for it.
pub(crate) fn install(root: &Path) -> Result<()> {
    let install = [
        "install",
        "--locked",
        "--quiet",
        STATIC_WEB_SERVER,
        "--root",
        "target/bench",
        "--target-dir",
        "target/bench/build",
    ];
    cargo(root, &install, &[])
}

const STATIC_WEB_SERVER: &str = "static-web-server@2";

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
