//! The checks that stand beside the tests.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

const CHECKS: [&[&str]; 3] = [
    &["fmt", "--all", "--check"],
    &[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ],
    &["doc", "--workspace", "--no-deps", "--locked"],
];

/// Runs each check; the first that fails ends it.
pub(crate) fn run(root: &Path) -> Result<()> {
    for check in CHECKS {
        println!("cargo {}", check.join(" "));
        let status = Command::new("cargo")
            .current_dir(root)
            .args(check)
            .env("RUSTDOCFLAGS", "-D warnings")
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "cargo {} fails", check.join(" "));
    }
    Ok(())
}
