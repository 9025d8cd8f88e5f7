//! The checks that stand beside the tests.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

const CHECKS: [&[&str]; 2] = [
    &["fmt", "--all", "--check"],
    &[
        "clippy",
        "--workspace",
        "--all-targets",
        // The fuzz targets are type-checked without libFuzzer, which is C++.
        "--features",
        "millpond-fuzz/targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ],
];

/// Runs each check, and that of the docs; the first that fails ends it.
pub(crate) fn run(root: &Path) -> Result<()> {
    for check in CHECKS {
        println!("cargo {}", check.join(" "));
        let status = Command::new("cargo")
            .current_dir(root)
            .args(check)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "cargo {} fails", check.join(" "));
    }
    crate::structure::check(root)?;
    crate::prose::check(root)?;
    crate::pages::check(root)?;
    crate::limits::check(root)?;
    crate::public_api::check(root)?;
    check_dependencies(root)
}

/// Checks the dependencies against `deny.toml`. The tool takes longer to build than all the rest, so the task does not
/// install it. It prints that the tool is absent.
fn check_dependencies(root: &Path) -> Result<()> {
    deny(root, &["licenses", "bans", "sources"])
}

/// Checks the dependencies for known vulnerabilities. The tool fetches their list, so the task is not part of [`run`],
/// which needs no network.
pub(crate) fn check_advisories(root: &Path) -> Result<()> {
    deny(root, &["advisories"])
}

fn deny(root: &Path, checks: &[&str]) -> Result<()> {
    let mut deny = Command::new("cargo-deny");
    deny.current_dir(root)
        .args(["--locked", "check"])
        .args(checks);
    match deny.status() {
        Ok(status) => ensure!(status.success(), "cargo deny fails"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!(
                "not checked: {} of dependencies (no cargo-deny here)",
                checks.join(", ")
            );
        }
        Err(error) => return Err(error).context("cannot run cargo-deny"),
    }
    Ok(())
}
